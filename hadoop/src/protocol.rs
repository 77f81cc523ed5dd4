//! Names of protocols and methods on the wire.

macro_rules! methods {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The method's name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }

            /// The method of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

/// What is spoken on a port, by the name of its Java interface.
///
/// Source: the `ProtocolInfo` annotations of the `*PB` interfaces; every one has version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Submitters and the `yarn` command line; port 8032.
    ApplicationClient,
    /// Application masters; port 8030.
    ApplicationMaster,
    /// Application masters at a node; port 8041.
    ContainerManagement,
    /// `yarn rmadmin`; port 8033.
    ResourceManagerAdministration,
}

impl Protocol {
    pub const ALL: [Protocol; 4] = [
        Protocol::ApplicationClient,
        Protocol::ApplicationMaster,
        Protocol::ContainerManagement,
        Protocol::ResourceManagerAdministration,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::ApplicationClient => "org.apache.hadoop.yarn.api.ApplicationClientProtocolPB",
            Protocol::ApplicationMaster => "org.apache.hadoop.yarn.api.ApplicationMasterProtocolPB",
            Protocol::ContainerManagement => {
                "org.apache.hadoop.yarn.api.ContainerManagementProtocolPB"
            }
            Protocol::ResourceManagerAdministration => {
                "org.apache.hadoop.yarn.server.api.ResourceManagerAdministrationProtocolPB"
            }
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

methods! {
    /// Methods of ApplicationClientProtocol.
    ClientMethod {
        GetNewApplication = "getNewApplication",
        GetApplicationReport = "getApplicationReport",
        SubmitApplication = "submitApplication",
        FailApplicationAttempt = "failApplicationAttempt",
        ForceKillApplication = "forceKillApplication",
        GetClusterMetrics = "getClusterMetrics",
        GetApplications = "getApplications",
        GetClusterNodes = "getClusterNodes",
        GetQueueInfo = "getQueueInfo",
        GetQueueUserAcls = "getQueueUserAcls",
        GetDelegationToken = "getDelegationToken",
        RenewDelegationToken = "renewDelegationToken",
        CancelDelegationToken = "cancelDelegationToken",
        MoveApplicationAcrossQueues = "moveApplicationAcrossQueues",
        GetApplicationAttemptReport = "getApplicationAttemptReport",
        GetApplicationAttempts = "getApplicationAttempts",
        GetContainerReport = "getContainerReport",
        GetContainers = "getContainers",
        GetNewReservation = "getNewReservation",
        SubmitReservation = "submitReservation",
        UpdateReservation = "updateReservation",
        DeleteReservation = "deleteReservation",
        ListReservations = "listReservations",
        GetNodeToLabels = "getNodeToLabels",
        GetLabelsToNodes = "getLabelsToNodes",
        GetClusterNodeLabels = "getClusterNodeLabels",
        UpdateApplicationPriority = "updateApplicationPriority",
        SignalToContainer = "signalToContainer",
        UpdateApplicationTimeouts = "updateApplicationTimeouts",
        GetResourceProfiles = "getResourceProfiles",
        GetResourceProfile = "getResourceProfile",
        GetResourceTypeInfo = "getResourceTypeInfo",
        GetClusterNodeAttributes = "getClusterNodeAttributes",
        GetAttributesToNodes = "getAttributesToNodes",
        GetNodesToAttributes = "getNodesToAttributes",
    }
}

methods! {
    /// Methods of ApplicationMasterProtocol.
    MasterMethod {
        RegisterApplicationMaster = "registerApplicationMaster",
        FinishApplicationMaster = "finishApplicationMaster",
        Allocate = "allocate",
    }
}

methods! {
    /// Methods of ContainerManagementProtocol.
    ContainerMethod {
        StartContainers = "startContainers",
        StopContainers = "stopContainers",
        GetContainerStatuses = "getContainerStatuses",
        IncreaseContainersResource = "increaseContainersResource",
        UpdateContainer = "updateContainer",
        SignalToContainer = "signalToContainer",
        Localize = "localize",
        ReInitializeContainer = "reInitializeContainer",
        RestartContainer = "restartContainer",
        RollbackLastReInitialization = "rollbackLastReInitialization",
        CommitLastReInitialization = "commitLastReInitialization",
        GetLocalizationStatuses = "getLocalizationStatuses",
    }
}

methods! {
    /// Methods of ResourceManagerAdministrationProtocol.
    AdminMethod {
        RefreshQueues = "refreshQueues",
        RefreshNodes = "refreshNodes",
        RefreshSuperUserGroupsConfiguration = "refreshSuperUserGroupsConfiguration",
        RefreshUserToGroupsMappings = "refreshUserToGroupsMappings",
        RefreshAdminAcls = "refreshAdminAcls",
        RefreshServiceAcls = "refreshServiceAcls",
        GetGroupsForUser = "getGroupsForUser",
        UpdateNodeResource = "updateNodeResource",
        RefreshNodesResources = "refreshNodesResources",
        AddToClusterNodeLabels = "addToClusterNodeLabels",
        RemoveFromClusterNodeLabels = "removeFromClusterNodeLabels",
        ReplaceLabelsOnNodes = "replaceLabelsOnNodes",
        CheckForDecommissioningNodes = "checkForDecommissioningNodes",
        RefreshClusterMaxPriority = "refreshClusterMaxPriority",
        MapAttributesToNodes = "mapAttributesToNodes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_name(protocol.name()), Some(protocol));
        }
        for &method in ClientMethod::ALL {
            assert_eq!(ClientMethod::from_name(method.name()), Some(method));
        }
        assert_eq!(ClientMethod::ALL.len(), 35);
        assert_eq!(ClientMethod::from_name("allocate"), None);
        assert_eq!(Protocol::from_name("ApplicationClientProtocolPB"), None);
    }
}
