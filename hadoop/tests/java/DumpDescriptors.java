import java.util.ArrayDeque;
import java.util.Deque;
import java.util.TreeMap;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.Descriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.EnumDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.EnumValueDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.FieldDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.FileDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.MethodDescriptor;
import org.apache.hadoop.thirdparty.protobuf.Descriptors.ServiceDescriptor;

/**
 * Prints the descriptors inside Hadoop's jars, one fact a line:
 *   field MESSAGE NUMBER NAME LABEL TYPE DEFAULT
 *   message MESSAGE
 *   enum ENUM NAME NUMBER
 *   method SERVICE NAME REQUEST RESPONSE
 * Arguments: names of the outer classes that protoc made.
 */
public final class DumpDescriptors {
  private static final TreeMap<String, FileDescriptor> files = new TreeMap<>();

  public static void main(String[] classes) throws Exception {
    Deque<FileDescriptor> open = new ArrayDeque<>();
    for (String name : classes) {
      open.add((FileDescriptor) Class.forName(name).getMethod("getDescriptor").invoke(null));
    }
    while (!open.isEmpty()) {
      FileDescriptor file = open.remove();
      if (files.put(file.getFullName(), file) == null) {
        open.addAll(file.getDependencies());
      }
    }
    for (FileDescriptor file : files.values()) {
      System.out.println("file " + file.getName() + " " + file.getPackage());
      file.getMessageTypes().forEach(DumpDescriptors::message);
      file.getEnumTypes().forEach(DumpDescriptors::enumeration);
      for (ServiceDescriptor service : file.getServices()) {
        for (MethodDescriptor method : service.getMethods()) {
          System.out.println("method " + service.getFullName() + " " + method.getName() + " "
              + method.getInputType().getFullName() + " " + method.getOutputType().getFullName());
        }
      }
    }
  }

  private static void message(Descriptor message) {
    System.out.println("message " + message.getFullName());
    for (FieldDescriptor field : message.getFields()) {
      FieldDescriptor.Type type = field.getType();
      String typeName = type.name().toLowerCase();
      String value = "-";
      if (type == FieldDescriptor.Type.MESSAGE) {
        typeName = field.getMessageType().getFullName();
      } else if (type == FieldDescriptor.Type.ENUM) {
        typeName = field.getEnumType().getFullName();
        if (field.hasDefaultValue()) {
          value = ((EnumValueDescriptor) field.getDefaultValue()).getName();
        }
      } else if (field.hasDefaultValue()) {
        value = "'" + field.getDefaultValue() + "'";
      }
      String label = field.isRepeated() ? "repeated" : field.isRequired() ? "required" : "optional";
      System.out.println("field " + message.getFullName() + " " + field.getNumber() + " "
          + field.getName() + " " + label + " " + typeName + " " + value);
    }
    message.getNestedTypes().forEach(DumpDescriptors::message);
    message.getEnumTypes().forEach(DumpDescriptors::enumeration);
  }

  private static void enumeration(EnumDescriptor type) {
    for (EnumValueDescriptor value : type.getValues()) {
      System.out.println("enum " + type.getFullName() + " " + value.getName() + " " + value.getNumber());
    }
  }
}
