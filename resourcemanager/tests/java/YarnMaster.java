// An application master over Hadoop's own AMRMClient, one line of standard input at a time. Every
// answer ends with a line `== exit N`.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.hadoop.yarn.api.protocolrecords.AllocateResponse;
import org.apache.hadoop.yarn.api.protocolrecords.RegisterApplicationMasterResponse;
import org.apache.hadoop.yarn.api.records.*;
import org.apache.hadoop.yarn.client.api.AMRMClient;
import org.apache.hadoop.yarn.client.api.AMRMClient.ContainerRequest;
import org.apache.hadoop.yarn.conf.YarnConfiguration;

public class YarnMaster {
  private static final AMRMClient<ContainerRequest> CLIENT = AMRMClient.createAMRMClient();
  private static final Map<String, Container> HELD = new HashMap<>();
  private static ContainerRequest last;

  public static void main(String[] none) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    CLIENT.init(new YarnConfiguration());
    CLIENT.start();
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      int code = 0;
      try {
        System.out.println(run(line.split(" ")));
      } catch (Exception e) {
        System.out.println(e.getClass().getName() + ": " + e.getMessage());
        code = 1;
      }
      System.out.println("== exit " + code);
      System.out.flush();
    }
  }

  private static String run(String[] words) throws Exception {
    switch (words[0]) {
      case "register": {
        RegisterApplicationMasterResponse got =
            CLIENT.registerApplicationMaster("localhost", -1, "http://localhost:4040");
        return "queue=" + got.getQueue() + " largest=" + got.getMaximumResourceCapability().getMemorySize()
            + " key=" + got.getClientToAMTokenMasterKey().remaining()
            + " kinds=" + got.getSchedulerResourceTypes()
            + " lists=" + got.getApplicationACLs().size();
      }
      case "ask": {
        // Count, MiB, host or nothing; a host is the only place that will do.
        String[] hosts = words.length > 3 ? new String[] {words[3]} : null;
        for (int i = 0; i < Integer.parseInt(words[1]); i++) {
          last = new ContainerRequest(Resource.newInstance(Long.parseLong(words[2]), 1), hosts, null,
              Priority.newInstance(hosts == null ? 1 : 2), hosts == null);
          CLIENT.addContainerRequest(last);
        }
        return "asked";
      }
      case "forget":
        CLIENT.removeContainerRequest(last);
        return "forgotten";
      case "release":
        CLIENT.releaseAssignedContainer(HELD.get(words[1]).getId());
        return "released";
      case "avoid":
        CLIENT.updateBlacklist(Arrays.asList(words[1]), null);
        return "avoided";
      case "accept":
        CLIENT.updateBlacklist(null, Arrays.asList(words[1]));
        return "accepted";
      case "resize": {
        Container held = HELD.get(words[1]);
        CLIENT.requestContainerUpdate(held, UpdateContainerRequest.newInstance(held.getVersion(),
            held.getId(), ContainerUpdateType.INCREASE_RESOURCE,
            Resource.newInstance(Long.parseLong(words[2]), 1), null));
        return "asked";
      }
      case "allocate":
        return answer(CLIENT.allocate(0.25f));
      case "finish":
        CLIENT.unregisterApplicationMaster(FinalApplicationStatus.SUCCEEDED, "done", "http://history/1");
        return "finished";
      default:
        throw new IllegalArgumentException(words[0]);
    }
  }

  private static String answer(AllocateResponse got) {
    for (Container container : got.getAllocatedContainers()) {
      HELD.put(container.getId().toString(), container);
      // As an application does: what is received is not wanted any more.
      String[] places = {"*", container.getNodeId().getHost()};
      Arrays.stream(places)
          .flatMap(place -> CLIENT
              .getMatchingRequests(container.getPriority(), place, container.getResource()).stream())
          .flatMap(java.util.Collection::stream)
          .findFirst()
          .ifPresent(CLIENT::removeContainerRequest);
    }
    for (UpdatedContainer updated : got.getUpdatedContainers()) {
      HELD.put(updated.getContainer().getId().toString(), updated.getContainer());
    }
    return "nodes=" + got.getNumClusterNodes()
        + " room=" + got.getAvailableResources().getMemorySize()
        + " priority=" + got.getApplicationPriority()
        + " preempt=" + (got.getPreemptionMessage() != null)
        + "\ngranted " + got.getAllocatedContainers().stream()
            .map(c -> c.getId() + "@" + c.getNodeId() + "/" + c.getContainerToken().getKind()
                + "/token:" + CLIENT.getNMTokenCache().containsToken(c.getNodeId().toString()))
            .collect(Collectors.joining(" "))
        + "\nended " + got.getCompletedContainersStatuses().stream()
            .map(s -> s.getContainerId() + ":" + s.getExitStatus() + ":" + s.getState())
            .collect(Collectors.joining(" "))
        + "\nupdated " + got.getUpdatedContainers().stream()
            .map(u -> u.getUpdateType() + ":" + u.getContainer().getResource().getMemorySize()
                + ":" + u.getContainer().getVersion())
            .collect(Collectors.joining(" "))
        + "\nrefused " + got.getUpdateErrors().stream()
            .map(UpdateContainerError::getReason).collect(Collectors.joining(" "))
        + "\nchanged " + got.getUpdatedNodes().stream()
            .map(n -> n.getNodeId() + ":" + n.getNodeState() + ":" + n.getNodeUpdateType())
            .collect(Collectors.joining(" "));
  }
}
