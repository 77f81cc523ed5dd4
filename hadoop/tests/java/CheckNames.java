import org.apache.hadoop.ipc.RPC;

/**
 * Looks classes up: exceptions, which need a constructor of one String, then after "--" protocols,
 * whose name on the wire must be the argument. Prints those that are not so.
 */
public final class CheckNames {
  public static void main(String[] names) {
    boolean protocols = false;
    for (String name : names) {
      if (name.equals("--")) {
        protocols = true;
        continue;
      }
      try {
        Class<?> type = Class.forName(name);
        if (!protocols) {
          type.getDeclaredConstructor(String.class);
        } else if (!RPC.getProtocolName(type).equals(name) || RPC.getProtocolVersion(type) != 1) {
          System.out.println(name + " has another name or version");
        }
      } catch (ReflectiveOperationException e) {
        System.out.println(name + ": " + e);
      }
    }
  }
}
