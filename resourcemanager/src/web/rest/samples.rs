//! Reports for the tests of the documents, with the values of the documentation's examples.

use bobbin_rm_core::view::{
    ApplicationReport, AttemptReport, ClusterMetrics, ClusterReport, ContainerReport, MasterPlace,
    NodeCounts, NodeReport, QueueReport, QueueStatistics,
};
use bobbin_rm_core::{LaunchContract, ResourceSeconds};
use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, ContainerState,
    ExitStatus, FinalStatus, NodeState, Resource, WallMillis,
};

pub(in crate::web) const ID: ApplicationId = ApplicationId {
    cluster_timestamp: 1_326_815_542_473,
    sequence: 1,
};
const ATTEMPT: AttemptId = AttemptId {
    application: ID,
    attempt: 1,
};
const CONTAINER: ContainerId = ContainerId {
    attempt: ATTEMPT,
    epoch: 0,
    number: 1,
};

/// "word count" of the documentation of Hadoop.
pub(in crate::web) fn ended() -> ApplicationReport {
    ApplicationReport {
        id: ID,
        name: "word count".to_owned(),
        user: "user1".parse().unwrap(),
        queue: "default".to_owned(),
        state: ApplicationState::Finished,
        final_status: FinalStatus::Succeeded,
        exit_status: Some(ExitStatus(0)),
        diagnostics: String::new(),
        submitted: WallMillis(1_326_815_573_334),
        started: Some(WallMillis(1_326_815_573_400)),
        finished: Some(WallMillis(1_326_815_598_530)),
        attempts: Vec::new(),
        application_type: "MAPREDUCE".to_owned(),
        tags: Vec::new(),
        priority: 0,
        used: Resource::default(),
        containers: 0,
        overhead: Resource::default(),
        waiting: String::new(),
        unmanaged: false,
        progress_permille: 1_000,
        tracking_url: "http://host.domain.com:19888/jobhistory".to_owned(),
        host: "host.domain.com".to_owned(),
        rpc_port: 39_027,
        current_attempt: Some(ATTEMPT),
        current_attempt_state: Some(AttemptState::Finished),
        master: Some(MasterPlace {
            container: CONTAINER,
            node: "host.domain.com:8041".parse().unwrap(),
            node_http_address: "host.domain.com:8042".to_owned(),
        }),
        launched: Some(WallMillis(1_326_815_573_400)),
        used_seconds: ResourceSeconds {
            memory_mib: 151_730,
            vcores: 103,
        },
        wanted: Resource::default(),
        wanted_containers: 0,
        asks: Vec::new(),
        timeout: None,
        node_label: String::new(),
        view_acl: String::new(),
        modify_acl: String::new(),
        keep_containers: false,
        max_attempts: 2,
        contract: LaunchContract::Yarn,
    }
}

pub(in crate::web) fn waiting() -> ApplicationReport {
    ApplicationReport {
        state: ApplicationState::Accepted,
        final_status: FinalStatus::Undefined,
        exit_status: None,
        finished: None,
        progress_permille: 0,
        tracking_url: String::new(),
        waiting: "no node has room for <1 GiB & more>".to_owned(),
        master: None,
        ..ended()
    }
}

pub(in crate::web) fn running(tracking_url: &str) -> ApplicationReport {
    ApplicationReport {
        state: ApplicationState::Running,
        tracking_url: tracking_url.to_owned(),
        waiting: String::new(),
        master: ended().master,
        ..waiting()
    }
}

pub(in crate::web) fn attempt() -> AttemptReport {
    AttemptReport {
        attempt: ATTEMPT,
        state: AttemptState::Running,
        exit_status: None,
        node: Some("host.domain.com:8041".parse().unwrap()),
        container: Some(CONTAINER),
        diagnostics: String::new(),
        started: Some(WallMillis(1_326_381_444_693)),
        finished: None,
        host: String::new(),
        rpc_port: 0,
        tracking_url: String::new(),
        node_http_address: "host.domain.com:8042".to_owned(),
        blacklist: Vec::new(),
    }
}

pub(in crate::web) fn container() -> ContainerReport {
    ContainerReport {
        container: CONTAINER,
        node: "host.domain.com:8041".parse().unwrap(),
        node_grpc_address: String::new(),
        node_http_address: "host.domain.com:8042".to_owned(),
        state: ContainerState::Completed,
        resource: Resource::new(1_024, 1),
        exit_status: Some(ExitStatus(-104)),
        diagnostics: "over memory".to_owned(),
        is_master: true,
        priority: 0,
        created: Some(WallMillis(1_000)),
        finished: Some(WallMillis(1_500)),
        version: 0,
    }
}

/// h2 of the documentation of Hadoop.
pub(in crate::web) fn node() -> NodeReport {
    NodeReport {
        id: "h2:1235".parse().unwrap(),
        state: NodeState::Running,
        connected: true,
        total: Resource::new(8_192, 8),
        used: Resource::default(),
        reserved: Resource::default(),
        containers: 0,
        grpc_address: "h2:8043".to_owned(),
        http_address: "h2:2".to_owned(),
        rack: "/default-rack".to_owned(),
        profile: "full".to_owned(),
        problems: Vec::new(),
        lacks: Vec::new(),
        last_seen: WallMillis(1_324_056_895_432),
        version: "0.1.0".to_owned(),
        memory_used_mib: 1_027,
        cpu_permille: 17,
    }
}

fn statistics() -> QueueStatistics {
    QueueStatistics {
        submitted: 5,
        pending: 1,
        running: 2,
        completed: 2,
        killed: 0,
        failed: 0,
        users: 1,
        allocated: Resource::new(1_024, 1),
        allocated_containers: 1,
        wanted: Resource::new(3_072, 3),
        wanted_containers: 3,
        available: Resource::new(16_384, 7),
    }
}

pub(in crate::web) fn metrics() -> ClusterMetrics {
    ClusterMetrics {
        nodes: NodeCounts {
            running: 1,
            lost: 1,
            ..NodeCounts::default()
        },
        total: Resource::new(17_408, 8),
        statistics: statistics(),
    }
}

pub(in crate::web) fn queue() -> QueueReport {
    QueueReport {
        name: "default".to_owned(),
        capacity_permille: 1_000,
        maximum_permille: 1_000,
        used_permille: 125,
        statistics: statistics(),
    }
}

pub(in crate::web) fn cluster() -> ClusterReport {
    ClusterReport {
        epoch: 3,
        cluster_timestamp: ID.cluster_timestamp,
        largest_container: Resource::new(8_192, 8),
        nodes_running: 1,
        total: Resource::new(17_408, 8),
        used: Resource::new(1_024, 1),
        applications: 5,
        applications_live: 3,
        illegal_transitions: 0,
    }
}
