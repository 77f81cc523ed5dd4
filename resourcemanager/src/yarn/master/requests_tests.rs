use proptest::prelude::*;
use prost::Message;

use super::*;

fn attempt() -> AttemptId {
    "appattempt_1_0001_000002".parse().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn wire_ask(count: i32) -> yarn::ResourceRequest {
    yarn::ResourceRequest {
        priority: Some(yarn::Priority { priority: Some(3) }),
        resource_name: Some("*".to_owned()),
        capability: Some(yarn::Resource {
            memory: Some(1_408),
            virtual_cores: Some(1),
            resource_value_map: Vec::new(),
        }),
        num_containers: Some(count),
        ..yarn::ResourceRequest::default()
    }
}

fn asking(ask: yarn::ResourceRequest) -> Result<Allocation, RpcException> {
    let request = yarn::AllocateRequest {
        ask: vec![ask],
        ..yarn::AllocateRequest::default()
    };
    Allocation::read(&request, attempt())
}

fn refused_ask(ask: yarn::ResourceRequest) -> String {
    let refused = asking(ask).unwrap_err();
    assert_eq!(refused.class, ExceptionClass::InvalidResourceRequest);
    refused.message
}

/// Captured from Spark 3.5.4: the request of frame 14 of the wire's golden vectors.
#[test]
fn sparks_first_heartbeat_with_an_ask() {
    let hex = "0a400a02080012012a1a2b08800b10011a140a096d656d6f72792d6d6210800b1a024d6920001a0e0a06\
               76636f72657310011a002000200128013a040801100040001a0020002dcdcccc3d";
    let request = yarn::AllocateRequest::decode(bytes(hex).as_slice()).unwrap();
    assert_eq!(request.response_id(), 0);
    let read = Allocation::read(&request, attempt()).unwrap();
    let ask = StatedAsk {
        priority: 0,
        request_id: 0,
        capability: Resource::new(1_408, 1),
        place: "*".to_owned(),
        count: 1,
        relax_locality: true,
        node_label: String::new(),
    };
    assert_eq!(
        read,
        Allocation {
            asks: vec![ask],
            releases: Vec::new(),
            blacklist_additions: Vec::new(),
            blacklist_removals: Vec::new(),
            updates: Vec::new(),
            refused_updates: Vec::new(),
            progress_permille: 100,
            tracking_url: None,
        }
    );
}

/// Captured from Spark 3.5.4: the request of frame 12.
#[test]
fn sparks_registration() {
    let hex = "0a093139322e302e322e3210a9cd021a16687474703a2f2f3139322e302e322e323a3436333831";
    let request = yarn::RegisterApplicationMasterRequest::decode(bytes(hex).as_slice()).unwrap();
    let read = registration(&request).unwrap();
    assert_eq!(
        (
            read.host.as_str(),
            read.rpc_port,
            read.tracking_url.as_str()
        ),
        ("192.0.2.2", 42_665, "http://192.0.2.2:46381")
    );
    assert_eq!((read.containers, read.asks.len()), (None, 0));
}

#[test]
fn asks_that_cannot_be_are_refused_in_words() {
    assert!(refused_ask(wire_ask(-1)).contains("is -1, less than 0"));
    assert!(refused_ask(wire_ask(i32::MAX)).contains("at most 1000000"));
    let mut ask = wire_ask(1);
    ask.capability.as_mut().unwrap().memory = Some(-5);
    assert!(refused_ask(ask).contains("less than 0"));
    let mut ask = wire_ask(1);
    ask.resource_name = Some("x".repeat(300));
    assert!(refused_ask(ask).contains("at most 255"));
    let mut ask = wire_ask(1);
    ask.resource_name = Some("/rack-7".to_owned());
    assert!(asking(ask.clone()).is_ok());
    ask.relax_locality = Some(false);
    assert!(refused_ask(ask).contains("/default-rack"));
    let mut ask = wire_ask(1);
    ask.execution_type_request = Some(yarn::ExecutionTypeRequest {
        execution_type: Some(yarn::ExecutionType::Opportunistic.into()),
        enforce_execution_type: Some(true),
    });
    assert!(refused_ask(ask).contains("GUARANTEED"));
    let many = yarn::AllocateRequest {
        ask: vec![wire_ask(1); ASKS_PER_APPLICATION_MAX + 1],
        ..yarn::AllocateRequest::default()
    };
    let refused = Allocation::read(&many, attempt()).unwrap_err();
    assert_eq!(refused.class, ExceptionClass::InvalidResourceRequest);
}

#[test]
fn nothing_is_raised_to_the_least() {
    let mut ask = wire_ask(1);
    ask.capability = Some(yarn::Resource::default());
    assert_eq!(asking(ask).unwrap().asks[0].capability, Resource::new(1, 1));
}

#[test]
fn only_the_applications_own_containers_are_released() {
    let release = |text: &str| {
        let id: ContainerId = text.parse().unwrap();
        let request = yarn::AllocateRequest {
            release: vec![id.into()],
            ..yarn::AllocateRequest::default()
        };
        Allocation::read(&request, attempt()).map(|read| read.releases)
    };
    let own = "container_e03_1_0001_02_000004";
    assert_eq!(release(own), Ok(vec![own.parse().unwrap()]));
    let refused = release("container_e03_1_0002_02_000004").unwrap_err();
    assert_eq!(refused.class, ExceptionClass::InvalidContainerRelease);
    let nonsense = yarn::AllocateRequest {
        release: vec![yarn::ContainerId::default()],
        ..yarn::AllocateRequest::default()
    };
    let refused = Allocation::read(&nonsense, attempt()).unwrap_err();
    assert_eq!(refused.class, ExceptionClass::InvalidContainerRelease);
}

#[test]
fn a_blacklist_names_hosts() {
    let blacklist = |name: &str| {
        let request = yarn::AllocateRequest {
            blacklist_request: Some(yarn::ResourceBlacklistRequest {
                blacklist_additions: vec![name.to_owned()],
                blacklist_removals: vec!["gone".to_owned()],
            }),
            ..yarn::AllocateRequest::default()
        };
        Allocation::read(&request, attempt())
    };
    let read = blacklist("bad").unwrap();
    assert_eq!(read.blacklist_additions, ["bad"]);
    assert_eq!(read.blacklist_removals, ["gone"]);
    for name in ["*", "", "a\nb"] {
        let class = blacklist(name).unwrap_err().class;
        assert_eq!(class, ExceptionClass::InvalidResourceBlacklistRequest);
    }
}

#[test]
fn updates_that_are_not_offered_are_answered_one_by_one() {
    let container: ContainerId = "container_e03_1_0001_02_000004".parse().unwrap();
    let update = |kind: i32| yarn::UpdateContainerRequest {
        container_version: 2,
        container_id: container.into(),
        update_type: kind,
        capability: Some(write_resource(&Resource::new(64, 2), &[])),
        execution_type: None,
    };
    let request = yarn::AllocateRequest {
        update_requests: vec![update(0), update(1), update(2), update(3), update(9)],
        ..yarn::AllocateRequest::default()
    };
    let read = Allocation::read(&request, attempt()).unwrap();
    let kinds: Vec<UpdateKind> = read.updates.iter().map(|u| u.kind).collect();
    assert_eq!(kinds, [UpdateKind::Increase, UpdateKind::Decrease]);
    assert_eq!(update_to_wire(&read.updates[1]), update(1));
    assert_eq!(read.refused_updates.len(), 3);
    assert!(read.refused_updates[0].reason.contains("GUARANTEED"));
}

#[test]
fn placement_constraints_are_not_offered() {
    let request = yarn::AllocateRequest {
        scheduling_requests: vec![yarn::SchedulingRequest::default()],
        ..yarn::AllocateRequest::default()
    };
    let refused = Allocation::read(&request, attempt()).unwrap_err();
    assert_eq!(refused.class, ExceptionClass::Yarn);
}

#[test]
fn progress_is_a_share_of_one() {
    for (said, read) in [
        (0.1, 100),
        (-3.0, 0),
        (7.5, 1000),
        (f32::NAN, 0),
        (f32::INFINITY, 1000),
    ] {
        assert_eq!(permille(said), read, "{said}");
    }
}

#[test]
fn a_farewell_is_cut_to_size() {
    let request = yarn::FinishApplicationMasterRequest {
        diagnostics: Some("ü".repeat(DIAGNOSTICS_BYTES_MAX)),
        tracking_url: Some("http://h:1/history/application_1_0001/1".to_owned()),
        final_application_status: Some(yarn::FinalApplicationStatus::AppFailed.into()),
    };
    let read = farewell(&request).unwrap();
    assert_eq!(read.diagnostics.len(), DIAGNOSTICS_BYTES_MAX);
    assert_eq!(read.final_status, FinalStatus::Failed);
    assert!(read.tracking_url.ends_with("/1"));
    let request = yarn::FinishApplicationMasterRequest {
        tracking_url: Some("x".repeat(TEXT_BYTES_MAX + 1)),
        ..request
    };
    assert!(farewell(&request).is_err());
}

proptest! {
    /// Whatever a container sends is read or refused, and what is read is within the limits.
    #[test]
    fn anything_is_safe(
        number: i32,
        memory: i64,
        vcores: i32,
        name in ".{0,300}",
        label in ".{0,300}",
        progress: f32,
        id: i64,
        kind: i32,
    ) {
        let capability = yarn::Resource {
            memory: Some(memory),
            virtual_cores: Some(vcores),
            resource_value_map: Vec::new(),
        };
        let request = yarn::AllocateRequest {
            ask: vec![yarn::ResourceRequest {
                resource_name: Some(name.clone()),
                node_label_expression: Some(label),
                capability: Some(capability.clone()),
                num_containers: Some(number),
                allocation_request_id: Some(id),
                ..wire_ask(1)
            }],
            update_requests: vec![yarn::UpdateContainerRequest {
                container_version: number,
                container_id: "container_1_0001_02_000004".parse::<ContainerId>().unwrap().into(),
                update_type: kind,
                capability: Some(capability),
                execution_type: Some(kind),
            }],
            progress: Some(progress),
            ..yarn::AllocateRequest::default()
        };
        if let Ok(read) = Allocation::read(&request, attempt()) {
            prop_assert!(read.asks[0].count <= CONTAINERS_PER_ASK_MAX);
            prop_assert!(read.asks[0].place.len() <= WORD_BYTES_MAX);
            prop_assert!(read.asks[0].capability.memory_mib > 0);
            prop_assert!(read.progress_permille <= 1000);
        }
        let request = yarn::RegisterApplicationMasterRequest {
            host: Some(name.clone()),
            rpc_port: Some(number),
            tracking_url: Some(name),
            placement_constraints: Vec::new(),
        };
        let _ = registration(&request);
    }
}
