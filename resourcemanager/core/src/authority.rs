//! The one function that answers every "may P do A to O", for every method of every door.
//!
//! Principals are proven before they come here: by a peer's uid or by a token's signature.

use std::fmt;
use std::sync::Arc;

use bobbin_types::{ApplicationId, AttemptId, ContainerId, NodeId, UserName};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// A person. uid 0 and the resource manager's own uid administer; as a submitter uid 0 is the
    /// account of `root_runs_as`, which is then the name here.
    User {
        name: UserName,
        administrator: bool,
        /// For the access lists of applications; empty where they are not known.
        groups: Groups,
    },
    /// An application master, by its attempt's token.
    Attempt(AttemptId),
    /// A node agent, by its node token: the host it is for.
    Node(String),
    /// A container, by its container token, or its agent on its behalf.
    Container(ContainerId),
    /// Whatever runs in a container, by the token for files that its agent put there.
    Tenant(ContainerId),
}

/// Names of the groups that the host gives a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Groups(pub Arc<[String]>);

/// The one mapping from a uid that the kernel proved to a principal. uid 0 administers and, as a
/// submitter, is the account `root_runs_as`; the resource manager's own uid administers as itself.
#[must_use]
pub fn principal_of_uid(
    uid: u32,
    account: &UserName,
    own_uid: u32,
    root_runs_as: &UserName,
    groups: Groups,
) -> Principal {
    let name = if uid == 0 { root_runs_as } else { account };
    Principal::User {
        name: name.clone(),
        administrator: uid == 0 || uid == own_uid,
        groups,
    }
}

/// What is asked for: one for every method of every service of the resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `Client.GetCluster`.
    ViewCluster,
    /// `Client.ListNodes`.
    ViewNodes,
    /// `Client.NewApplication`.
    NewApplication,
    /// `Client.SubmitApplication`.
    SubmitApplication,
    /// `Client.GetApplication`, `ListApplications` (row by row), `ListContainers`, `WatchApplication`.
    ViewApplication,
    /// `Client.KillApplication`.
    KillApplication,
    /// `updateApplicationPriority`.
    SetPriority,
    /// `moveApplicationAcrossQueues`.
    MoveApplication,
    /// `Client.SetTimeout`, `updateApplicationTimeouts`.
    SetTimeout,
    /// `failApplicationAttempt`.
    FailAttempt,
    /// `signalToContainer`.
    SignalContainer,
    /// `ResourceManagerAdministrationProtocol`: whatever changes the cluster.
    Administer,
    /// `Client.HoldLease`.
    HoldLease,
    /// `Client.ReadLogs`, `ListLogFiles`.
    ReadLogs,
    /// `Client.CreateToken` for a user.
    CreateUserToken,
    /// `Client.CreateToken` for a node.
    CreateNodeToken,
    /// `Staging.Upload`.
    Upload,
    /// `Staging.Fetch`.
    FetchStaged,
    /// WebHDFS: whatever reads. Whether this file may be read is its mode's word.
    ReadFiles,
    /// WebHDFS: whatever changes. Whether this file may be changed is its mode's word.
    ChangeFiles,
    /// `Node.Attach`.
    AttachNode,
    /// `ApplicationMaster.Attach`.
    AttachMaster,
}

impl Operation {
    pub const ALL: &'static [Operation] = &[
        Operation::ViewCluster,
        Operation::ViewNodes,
        Operation::NewApplication,
        Operation::SubmitApplication,
        Operation::ViewApplication,
        Operation::KillApplication,
        Operation::SetPriority,
        Operation::MoveApplication,
        Operation::SetTimeout,
        Operation::FailAttempt,
        Operation::SignalContainer,
        Operation::Administer,
        Operation::HoldLease,
        Operation::ReadLogs,
        Operation::CreateUserToken,
        Operation::CreateNodeToken,
        Operation::Upload,
        Operation::FetchStaged,
        Operation::ReadFiles,
        Operation::ChangeFiles,
        Operation::AttachNode,
        Operation::AttachMaster,
    ];

    /// Whether the daemon writes an audit line even when it is allowed.
    #[must_use]
    pub fn changes(self) -> bool {
        match self {
            Operation::ViewCluster
            | Operation::ViewNodes
            | Operation::ViewApplication
            | Operation::ReadLogs
            | Operation::FetchStaged
            | Operation::ReadFiles => false,
            Operation::NewApplication
            | Operation::SubmitApplication
            | Operation::KillApplication
            | Operation::SetPriority
            | Operation::MoveApplication
            | Operation::SetTimeout
            | Operation::FailAttempt
            | Operation::SignalContainer
            | Operation::Administer
            | Operation::HoldLease
            | Operation::CreateUserToken
            | Operation::CreateNodeToken
            | Operation::Upload
            | Operation::ChangeFiles
            | Operation::AttachNode
            | Operation::AttachMaster => true,
        }
    }

    /// In words, as a refusal says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::ViewCluster => "view the cluster",
            Operation::ViewNodes => "list nodes",
            Operation::NewApplication => "get an application id",
            Operation::SubmitApplication => "submit",
            Operation::ViewApplication => "view",
            Operation::KillApplication => "kill",
            Operation::SetPriority => "change the priority of",
            Operation::MoveApplication => "move",
            Operation::SetTimeout => "change the timeout of",
            Operation::FailAttempt => "fail an attempt of",
            Operation::SignalContainer => "signal a container of",
            Operation::Administer => "administer",
            Operation::HoldLease => "hold the lease of",
            Operation::ReadLogs => "read logs of",
            Operation::CreateUserToken => "create a token for",
            Operation::CreateNodeToken => "create a node token for",
            Operation::Upload => "upload for",
            Operation::FetchStaged => "fetch files of",
            Operation::ReadFiles => "read",
            Operation::ChangeFiles => "change",
            Operation::AttachNode => "register",
            Operation::AttachMaster => "register the master of",
        }
    }
}

/// An application's access lists: YARN's text, `user1,user2 group1,group2`, or `*` for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acls<'a> {
    pub view: &'a str,
    pub modify: &'a str,
}

/// What decides about an application, to be carried out of the core by a door that asks later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationRights {
    pub id: ApplicationId,
    pub owner: UserName,
    pub view_acl: String,
    pub modify_acl: String,
}

impl ApplicationRights {
    #[must_use]
    pub fn object(&self) -> Object<'_> {
        Object::Application {
            id: self.id,
            owner: &self.owner,
            acls: Acls {
                view: &self.view_acl,
                modify: &self.modify_acl,
            },
        }
    }
}

/// Whether the list names the user or one of his groups.
///
/// Source: `AccessControlList`: users, a blank, groups; commas between them.
fn is_listed(acl: &str, name: &UserName, groups: &Groups) -> bool {
    if acl.trim() == "*" {
        return true;
    }
    let (users, named_groups) = acl.split_once(' ').unwrap_or((acl, ""));
    let has = |list: &str, wanted: &str| list.split(',').any(|entry| entry.trim() == wanted);
    has(users, name.as_str()) || groups.0.iter().any(|group| has(named_groups, group))
}

/// What it is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    Cluster,
    /// An application with its owner.
    Application {
        id: ApplicationId,
        owner: &'a UserName,
        acls: Acls<'a>,
    },
    /// A user, as the subject of a token or the owner of a folder.
    User(&'a UserName),
    /// A host that an agent shall run on.
    Host(&'a str),
    Node(&'a NodeId),
    Attempt(AttemptId),
    /// A path of the file tree.
    File(&'a str),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::User {
                name,
                administrator: false,
                groups: _,
            } => write!(f, "user {name}"),
            Principal::User {
                name,
                administrator: true,
                groups: _,
            } => {
                write!(f, "user {name} (administrator)")
            }
            Principal::Attempt(attempt) => write!(f, "{attempt}"),
            Principal::Node(host) => write!(f, "node agent of {host}"),
            Principal::Container(container) => write!(f, "{container}"),
            Principal::Tenant(container) => write!(f, "the program in {container}"),
        }
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Cluster => f.write_str("the cluster"),
            Object::Application { id, owner, .. } => write!(f, "{id} of user {owner}"),
            Object::User(name) => write!(f, "user {name}"),
            Object::Host(host) => write!(f, "host {host}"),
            Object::Node(node) => write!(f, "node {node}"),
            Object::Attempt(attempt) => write!(f, "{attempt}"),
            Object::File(path) => write!(f, "file {path}"),
        }
    }
}

/// Somebody asked for what is not theirs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{principal} may not {} {object}: {rule}", .operation.as_str())]
pub struct Denied {
    pub principal: Principal,
    pub operation: Operation,
    pub object: String,
    /// Who may.
    pub rule: &'static str,
}

/// Whether `principal` may do `operation` to `object`. Owner and administrator come first; machines
/// may do only what their token is for.
///
/// # Errors
/// [`Denied`] names the rule.
pub fn may(principal: &Principal, operation: Operation, object: &Object<'_>) -> Result<(), Denied> {
    let rule = match principal {
        Principal::User {
            name,
            administrator,
            groups,
        } => user_may((name, groups), *administrator, operation, object),
        Principal::Attempt(attempt) => attempt_may(*attempt, operation, object),
        Principal::Node(host) => node_may(host, operation, object),
        Principal::Container(container) => container_may(container, operation, object),
        Principal::Tenant(_) => tenant_may(operation, object),
    };
    rule.map_err(|rule| Denied {
        principal: principal.clone(),
        operation,
        object: object.to_string(),
        rule,
    })
}

/// Nobody is listed for what is no application.
fn acls_of<'a>(object: &Object<'a>) -> Acls<'a> {
    match object {
        Object::Application { acls, .. } => *acls,
        Object::Cluster
        | Object::User(_)
        | Object::Host(_)
        | Object::Node(_)
        | Object::Attempt(_)
        | Object::File(_) => Acls::default(),
    }
}

fn user_may(
    (name, groups): (&UserName, &Groups),
    administrator: bool,
    operation: Operation,
    object: &Object<'_>,
) -> Result<(), &'static str> {
    let owner = match object {
        Object::Application { owner, .. } => *owner == name,
        Object::User(user) => *user == name,
        Object::Cluster
        | Object::Host(_)
        | Object::Node(_)
        | Object::Attempt(_)
        | Object::File(_) => false,
    };
    let acls = acls_of(object);
    let listed = |acl: &str| {
        if owner || administrator || is_listed(acl, name, groups) {
            Ok(())
        } else if acl.trim().is_empty() {
            Err("only its owner and administrators")
        } else {
            Err("only its owner, whom its access list names, and administrators")
        }
    };
    match operation {
        Operation::ViewCluster
        | Operation::ViewNodes
        | Operation::NewApplication
        | Operation::SubmitApplication => Ok(()),
        Operation::ViewApplication | Operation::ReadLogs => listed(acls.view),
        Operation::KillApplication
        | Operation::SetPriority
        | Operation::MoveApplication
        | Operation::SetTimeout
        | Operation::FailAttempt
        | Operation::SignalContainer => listed(acls.modify),
        Operation::HoldLease
        | Operation::CreateUserToken
        | Operation::Upload
        | Operation::FetchStaged => {
            if owner || administrator {
                Ok(())
            } else {
                Err("only its owner and administrators")
            }
        }
        Operation::CreateNodeToken | Operation::Administer => {
            if administrator {
                Ok(())
            } else {
                Err("only administrators")
            }
        }
        Operation::ReadFiles | Operation::ChangeFiles => {
            if matches!(object, Object::File(_)) {
                Ok(())
            } else {
                Err("only files of the tree")
            }
        }
        Operation::AttachNode => Err("only an agent with that node's token"),
        Operation::AttachMaster => Err("only the attempt itself, with its token"),
    }
}

fn attempt_may(
    attempt: AttemptId,
    operation: Operation,
    object: &Object<'_>,
) -> Result<(), &'static str> {
    let own = match object {
        Object::Application { id, .. } => *id == attempt.application,
        Object::Attempt(other) => *other == attempt,
        Object::Cluster | Object::User(_) | Object::Host(_) | Object::Node(_) | Object::File(_) => {
            false
        }
    };
    let allowed = match operation {
        Operation::ViewCluster => true,
        Operation::ViewApplication | Operation::FetchStaged => own,
        Operation::AttachMaster => own && matches!(object, Object::Attempt(_)),
        Operation::ViewNodes
        | Operation::NewApplication
        | Operation::SubmitApplication
        | Operation::KillApplication
        | Operation::SetPriority
        | Operation::MoveApplication
        | Operation::SetTimeout
        | Operation::FailAttempt
        | Operation::SignalContainer
        | Operation::Administer
        | Operation::HoldLease
        | Operation::ReadLogs
        | Operation::CreateUserToken
        | Operation::CreateNodeToken
        | Operation::Upload
        | Operation::ReadFiles
        | Operation::ChangeFiles
        | Operation::AttachNode => false,
    };
    if allowed {
        Ok(())
    } else {
        Err("an attempt's token is for that attempt's own master only")
    }
}

fn node_may(host: &str, operation: Operation, object: &Object<'_>) -> Result<(), &'static str> {
    let own = match object {
        Object::Node(node) => node.host() == host,
        Object::Host(other) => *other == host,
        Object::Cluster
        | Object::Application { .. }
        | Object::User(_)
        | Object::Attempt(_)
        | Object::File(_) => false,
    };
    let allowed = match operation {
        Operation::AttachNode => own,
        Operation::ViewCluster
        | Operation::ViewNodes
        | Operation::NewApplication
        | Operation::SubmitApplication
        | Operation::ViewApplication
        | Operation::KillApplication
        | Operation::SetPriority
        | Operation::MoveApplication
        | Operation::SetTimeout
        | Operation::FailAttempt
        | Operation::SignalContainer
        | Operation::Administer
        | Operation::HoldLease
        | Operation::ReadLogs
        | Operation::CreateUserToken
        | Operation::CreateNodeToken
        | Operation::Upload
        | Operation::FetchStaged
        | Operation::ReadFiles
        | Operation::ChangeFiles
        | Operation::AttachMaster => false,
    };
    if allowed {
        Ok(())
    } else {
        Err("a node's token is for the agent of that host only")
    }
}

/// Files as its application's user, whom the door looks up, and nothing that makes it one.
fn tenant_may(operation: Operation, object: &Object<'_>) -> Result<(), &'static str> {
    let allowed = match operation {
        Operation::ReadFiles | Operation::ChangeFiles => matches!(object, Object::File(_)),
        Operation::ViewCluster
        | Operation::ViewNodes
        | Operation::NewApplication
        | Operation::SubmitApplication
        | Operation::ViewApplication
        | Operation::KillApplication
        | Operation::SetPriority
        | Operation::MoveApplication
        | Operation::SetTimeout
        | Operation::FailAttempt
        | Operation::SignalContainer
        | Operation::Administer
        | Operation::HoldLease
        | Operation::ReadLogs
        | Operation::CreateUserToken
        | Operation::CreateNodeToken
        | Operation::Upload
        | Operation::FetchStaged
        | Operation::AttachNode
        | Operation::AttachMaster => false,
    };
    if allowed {
        Ok(())
    } else {
        Err("a container's token for files is good for its user's files only")
    }
}

fn container_may(
    container: &ContainerId,
    operation: Operation,
    object: &Object<'_>,
) -> Result<(), &'static str> {
    let own = match object {
        Object::Application { id, .. } => *id == container.application(),
        Object::Cluster
        | Object::User(_)
        | Object::Host(_)
        | Object::Node(_)
        | Object::Attempt(_)
        | Object::File(_) => false,
    };
    let allowed = match operation {
        Operation::FetchStaged => own,
        // As its application's user: the door looks him up, the file's mode then decides.
        Operation::ReadFiles => matches!(object, Object::File(_)),
        Operation::ViewCluster
        | Operation::ViewNodes
        | Operation::NewApplication
        | Operation::SubmitApplication
        | Operation::ViewApplication
        | Operation::KillApplication
        | Operation::SetPriority
        | Operation::MoveApplication
        | Operation::SetTimeout
        | Operation::FailAttempt
        | Operation::SignalContainer
        | Operation::Administer
        | Operation::HoldLease
        | Operation::ReadLogs
        | Operation::CreateUserToken
        | Operation::CreateNodeToken
        | Operation::Upload
        | Operation::ChangeFiles
        | Operation::AttachNode
        | Operation::AttachMaster => false,
    };
    if allowed {
        Ok(())
    } else {
        Err("a container's token fetches its application's files only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_lists_are_read_as_yarn_reads_them() {
        let ann: UserName = "ann".parse().unwrap();
        let groups = Groups(Arc::from(["staff".to_owned(), "wheel".to_owned()]));
        let none = Groups::default();
        for acl in ["*", " * ", "ann", "bob,ann", "ann ", "bob,ann x"] {
            assert!(is_listed(acl, &ann, &none), "{acl:?}");
        }
        for acl in ["bob staff", " x,wheel", " wheel, x"] {
            assert!(is_listed(acl, &ann, &groups), "{acl:?}");
            assert!(!is_listed(acl, &ann, &none), "{acl:?}");
        }
        // Behind the blank are groups, whatever stands there.
        for acl in [
            "", " ", "annie", "staff", "bob *", "ann2,an", " ann", "bob, ann", "*,",
        ] {
            assert!(!is_listed(acl, &ann, &groups), "{acl:?}");
        }
    }

    #[test]
    fn a_list_gives_what_it_is_for_and_no_more() {
        let rights = ApplicationRights {
            id: "application_1_0001".parse().unwrap(),
            owner: "ann".parse().unwrap(),
            view_acl: "bob".to_owned(),
            modify_acl: " staff".to_owned(),
        };
        let who = |name: &str, groups: &[&str]| Principal::User {
            name: name.parse().unwrap(),
            administrator: false,
            groups: Groups(groups.iter().map(|g| (*g).to_owned()).collect()),
        };
        let allowed = |principal: &Principal| {
            Operation::ALL
                .iter()
                .filter(|operation| may(principal, **operation, &rights.object()).is_ok())
                .filter(|operation| may(&who("eve", &[]), **operation, &rights.object()).is_err())
                .map(|operation| format!("{operation:?}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(allowed(&who("bob", &["bob"])), "ViewApplication ReadLogs");
        assert_eq!(
            allowed(&who("carl", &["staff"])),
            "KillApplication SetPriority MoveApplication SetTimeout FailAttempt SignalContainer"
        );
    }
}
