//! Field numbers, names, labels, types, defaults, enum values and methods against the jars.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_hadoop::exceptions::ExceptionClass;
use bobbin_hadoop::proto::DESCRIPTORS;
use bobbin_hadoop::protocol::{AdminMethod, ClientMethod, ContainerMethod, MasterMethod, Protocol};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::java::{Hadoop, Java};

/// Outer classes that protoc made of the files we mirror.
const FILES: [&str; 12] = [
    "org.apache.hadoop.ipc.protobuf.RpcHeaderProtos",
    "org.apache.hadoop.ipc.protobuf.IpcConnectionContextProtos",
    "org.apache.hadoop.ipc.protobuf.ProtobufRpcEngine2Protos",
    "org.apache.hadoop.ipc.protobuf.ProtocolInfoProtos",
    "org.apache.hadoop.security.proto.SecurityProtos",
    "org.apache.hadoop.yarn.proto.YarnProtos",
    "org.apache.hadoop.yarn.proto.YarnServiceProtos",
    "org.apache.hadoop.yarn.proto.YarnSecurityTokenProtos",
    "org.apache.hadoop.yarn.proto.ApplicationClientProtocol",
    "org.apache.hadoop.yarn.proto.ApplicationMasterProtocol",
    "org.apache.hadoop.yarn.proto.ContainerManagementProtocol",
    "org.apache.hadoop.yarn.proto.ResourceManagerAdministrationProtocol",
];

/// A type's full name without the suffix `Proto` of its parts, which is not on the wire.
fn bare(name: &str) -> String {
    let parts = name.trim_start_matches('.').split('.');
    let bare: Vec<_> = parts
        .map(|p| p.strip_suffix("Proto").unwrap_or(p))
        .collect();
    bare.join(".")
}

/// Names are compared by their letters: ours are snake_case.
fn letters(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

/// The facts in `DumpDescriptors`' form.
fn ours() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut facts = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            message_facts(package, message, &mut facts);
        }
        for enumeration in &file.enum_type {
            enum_facts(package, enumeration, &mut facts);
        }
        for service in &file.service {
            for method in &service.method {
                facts.insert(format!(
                    "method {package}.{} {} {} {}",
                    service.name(),
                    method.name(),
                    bare(method.input_type()),
                    bare(method.output_type())
                ));
            }
        }
    }
    facts
}

fn message_facts(scope: &str, message: &DescriptorProto, facts: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("message {name}"));
    for field in &message.field {
        facts.insert(field_fact(&name, field));
    }
    for nested in &message.nested_type {
        message_facts(&name, nested, facts);
    }
    for nested in &message.enum_type {
        enum_facts(&name, nested, facts);
    }
}

fn enum_facts(scope: &str, enumeration: &EnumDescriptorProto, facts: &mut BTreeSet<String>) {
    for value in &enumeration.value {
        facts.insert(format!(
            "enum {scope}.{} {} {}",
            enumeration.name(),
            value.name(),
            value.number()
        ));
    }
}

fn field_fact(message: &str, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Optional => "optional",
        Label::Repeated => "repeated",
        Label::Required => "required",
    };
    let kind = field.r#type();
    let default = field.default_value.as_deref();
    let (kind, default) = if matches!(kind, Type::Message | Type::Enum) {
        (bare(field.type_name()), default.map(str::to_owned))
    } else {
        let name = kind.as_str_name().trim_start_matches("TYPE_");
        (name.to_ascii_lowercase(), default.map(|d| format!("'{d}'")))
    };
    let default = default.unwrap_or_else(|| "-".to_owned());
    format!(
        "field {message} {} {} {label} {kind} {default}",
        field.number(),
        letters(field.name())
    )
}

/// A line of `DumpDescriptors` in the form of `ours`.
fn theirs(line: &str) -> Option<String> {
    let words: Vec<_> = line.splitn(7, ' ').collect();
    Some(match words.as_slice() {
        ["message", name] => format!("message {}", bare(name)),
        ["enum", name, value, number] => format!("enum {} {value} {number}", bare(name)),
        ["method", service, name, request, response] => {
            format!(
                "method {service} {name} {} {}",
                bare(request),
                bare(response)
            )
        }
        ["field", message, number, name, label, kind, default] => {
            let kind = if kind.contains('.') {
                bare(kind)
            } else {
                (*kind).to_owned()
            };
            format!(
                "field {} {number} {} {label} {kind} {default}",
                bare(message),
                letters(name)
            )
        }
        ["file", ..] => return None,
        _ => panic!("a line of an unknown form: {line}"),
    })
}

#[test]
fn every_field_is_as_in_the_jars() {
    for java in Java::each("every_field_is_as_in_the_jars", "DumpDescriptors.java") {
        let dump = java.run("DumpDescriptors", &FILES);
        let theirs: BTreeSet<_> = dump.lines().filter_map(theirs).collect();
        let ours = ours();
        assert!(
            theirs.len() > 1000,
            "only {} facts in the jars",
            theirs.len()
        );
        let wrong: Vec<_> = ours.difference(&theirs).collect();
        assert!(
            wrong.is_empty(),
            "not so in the jars of {:?}: {wrong:#?}",
            java.hadoop
        );
        let missing: Vec<_> = theirs.difference(&ours).collect();
        match java.hadoop {
            // Of the version that is mirrored nothing may be missing.
            Hadoop::V33 => assert!(missing.is_empty(), "missing here: {missing:#?}"),
            // What is new there is optional: it is skipped in requests and not sent.
            Hadoop::V34 => {
                let needed: Vec<_> = missing
                    .iter()
                    .filter(|f| f.starts_with("field ") && f.contains(" required "))
                    .filter(|f| {
                        let message = f.split(' ').nth(1).unwrap();
                        ours.contains(&format!("message {message}"))
                    })
                    .collect();
                assert!(needed.is_empty(), "required and missing here: {needed:#?}");
            }
        }
    }
}

#[test]
fn every_method_has_its_name() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut services = BTreeMap::new();
    for service in set.file.iter().flat_map(|file| &file.service) {
        let names: Vec<_> = service.method.iter().map(|m| m.name().to_owned()).collect();
        services.insert(service.name().to_owned(), names);
    }
    let check = |service: &str, names: Vec<&str>| {
        assert_eq!(services[service], names, "{service}");
    };
    check(
        "ApplicationClientProtocolService",
        ClientMethod::ALL.iter().map(|m| m.name()).collect(),
    );
    check(
        "ApplicationMasterProtocolService",
        MasterMethod::ALL.iter().map(|m| m.name()).collect(),
    );
    check(
        "ContainerManagementProtocolService",
        ContainerMethod::ALL.iter().map(|m| m.name()).collect(),
    );
    check(
        "ResourceManagerAdministrationProtocolService",
        AdminMethod::ALL.iter().map(|m| m.name()).collect(),
    );
}

#[test]
fn exceptions_and_protocols_exist() {
    for java in Java::each("exceptions_and_protocols_exist", "CheckNames.java") {
        let mut names: Vec<_> = ExceptionClass::ALL.iter().map(|c| c.name()).collect();
        names.push("--");
        names.extend(Protocol::ALL.map(Protocol::name));
        assert_eq!(java.run("CheckNames", &names), "", "{:?}", java.hadoop);
    }
}
