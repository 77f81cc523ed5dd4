// Runs YARN's own command line classes and client library, one line of standard input at a time, in
// one process: each costs seconds to start. Every answer ends with a line `== exit N`.
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.io.DataOutputBuffer;
import org.apache.hadoop.io.Text;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.util.Tool;
import org.apache.hadoop.util.ToolRunner;
import org.apache.hadoop.yarn.api.records.*;
import org.apache.hadoop.yarn.client.api.YarnClient;
import org.apache.hadoop.yarn.client.api.YarnClientApplication;
import org.apache.hadoop.yarn.client.cli.YarnCLI;
import org.apache.hadoop.yarn.conf.YarnConfiguration;

public class YarnCommands {
  private static final PrintStream OUT = System.out;
  private static YarnClient client;

  public static void main(String[] none) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    client = YarnClient.createYarnClient();
    client.init(new YarnConfiguration());
    client.start();
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] words = line.split(" ");
      String[] rest = Arrays.copyOfRange(words, 1, words.length);
      int code;
      try {
        code = words[0].startsWith("call:") ? call(words[0].substring(5), rest) : command(words[0], rest);
      } catch (Exception e) {
        Throwable cause = e instanceof InvocationTargetException ? e.getCause() : e;
        OUT.println(cause.getClass().getName() + ": " + cause.getMessage());
        code = 255;
      }
      OUT.println("== exit " + code);
      OUT.flush();
    }
  }

  /** One of the command line's classes, as its own main runs it. */
  private static int command(String name, String[] arguments) throws Exception {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    PrintStream out = new PrintStream(bytes, true, "UTF-8");
    Class<?> type = Class.forName("org.apache.hadoop.yarn.client.cli." + name);
    Tool tool = (Tool) type.getDeclaredConstructor().newInstance();
    PrintStream before = System.out;
    PrintStream beforeErr = System.err;
    System.setOut(out);
    System.setErr(out);
    int code;
    try {
      if (tool instanceof YarnCLI) {
        ((YarnCLI) tool).setSysOutPrintStream(out);
        ((YarnCLI) tool).setSysErrPrintStream(out);
      }
      code = ToolRunner.run(new YarnConfiguration(), tool, arguments);
      if (tool instanceof YarnCLI) {
        ((YarnCLI) tool).stop();
      }
    } finally {
      System.setOut(before);
      System.setErr(beforeErr);
      out.flush();
      OUT.print(bytes.toString("UTF-8"));
    }
    return code;
  }

  /** A call of the client library, whose answer is printed. */
  private static int call(String name, String[] words) throws Exception {
    switch (name) {
      // What `yarn top` asks for.
      case "top":
        YarnClusterMetrics metrics = client.getYarnClusterMetrics();
        OUT.println("nodes " + metrics.getNumActiveNodeManagers() + "/" + metrics.getNumNodeManagers());
        QueueStatistics root = client.getQueueInfo("root").getQueueStatistics();
        OUT.println("running " + root.getNumAppsRunning() + " pending " + root.getNumAppsPending()
            + " allocated " + root.getAllocatedMemoryMB() + " MB " + root.getAllocatedVCores() + " vcores "
            + root.getAllocatedContainers() + " containers, available " + root.getAvailableMemoryMB());
        for (QueueInfo queue : client.getAllQueues()) {
          OUT.println("queue " + queue.getQueueName() + " " + queue.getQueueState() + " "
              + queue.getMaximumCapacity());
        }
        for (ApplicationReport app : client.getApplications(
            EnumSet.of(YarnApplicationState.ACCEPTED, YarnApplicationState.RUNNING))) {
          ApplicationResourceUsageReport usage = app.getApplicationResourceUsageReport();
          OUT.println("app " + app.getApplicationId() + " " + usage.getUsedResources().getMemorySize() + " MB "
              + usage.getNumUsedContainers() + " of " + usage.getNeededResources().getMemorySize());
        }
        return 0;
      case "cluster":
        OUT.println("acls " + client.getQueueAclsInfo());
        OUT.println("types " + new TreeMap<>(byName(client.getResourceTypeInfo())));
        OUT.println("labels " + client.getClusterNodeLabels() + client.getNodeToLabels() + client.getLabelsToNodes());
        OUT.println("attributes " + client.getClusterAttributes() + client.getNodeToAttributes(Collections.emptySet())
            + client.getAttributesToNodes(Collections.emptySet()));
        OUT.println("nodes " + client.getNodeReports().size() + " " + client.getNodeReports(NodeState.LOST).size());
        return 0;
      case "submit":
        return submit(words[0], words.length > 1 ? words[1] : "managed");
      case "token":
        Token token = client.getRMDelegationToken(new Text("yarn"));
        OUT.println(token.getKind() + " for " + token.getService());
        return 0;
      case "reserve":
        client.createReservation();
        return 0;
      case "profiles":
        client.getResourceProfiles();
        return 0;
      default:
        throw new IllegalArgumentException(name);
    }
  }

  private static Map<String, String> byName(java.util.List<ResourceTypeInfo> types) {
    Map<String, String> units = new HashMap<>();
    for (ResourceTypeInfo type : types) {
      units.put(type.getName(), type.getDefaultUnit());
    }
    return units;
  }

  private static int submit(String name, String how) throws Exception {
    YarnClientApplication application = client.createApplication();
    ApplicationSubmissionContext context = application.getApplicationSubmissionContext();
    context.setApplicationName(name);
    context.setApplicationType("TEST");
    context.setApplicationTags(new java.util.HashSet<>(Arrays.asList("One", "two")));
    context.setResource(Resource.newInstance(how.equals("huge") ? 1 << 30 : 256, 1));
    context.setUnmanagedAM(how.equals("unmanaged"));
    context.setPriority(Priority.newInstance(3));
    DataOutputBuffer tokens = new DataOutputBuffer();
    new Credentials().writeTokenStorageToStream(tokens);
    Map<String, LocalResource> resources = new HashMap<>();
    resources.put("link", LocalResource.newInstance(URL.newInstance("file", null, -1, "/etc/hosts"),
        LocalResourceType.FILE, LocalResourceVisibility.PRIVATE, 1, 2));
    context.setAMContainerSpec(ContainerLaunchContext.newInstance(resources,
        Collections.singletonMap("KEY", "{{PWD}}"), Collections.singletonList("sleep 60"), null,
        ByteBuffer.wrap(tokens.getData(), 0, tokens.getLength()), null));
    ApplicationId id = client.submitApplication(context);
    OUT.println(id);
    if (how.equals("unmanaged")) {
      OUT.println(client.getAMRMToken(id).getKind());
    }
    return 0;
  }
}
