//! The names of the operations, by HTTP method.

use axum::http::Method;

use super::problem::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Append,
    Open,
    GetFileStatus,
    ListStatus,
    ListStatusBatch,
    GetContentSummary,
    GetQuotaUsage,
    GetFileChecksum,
    GetHomeDirectory,
    GetTrashRoot,
    GetServerDefaults,
    GetBlockLocations,
    GetFileBlockLocations,
    CheckAccess,
    GetDelegationToken,
    RenewDelegationToken,
    CancelDelegationToken,
    MkDirs,
    Rename,
    Delete,
    SetPermission,
    SetOwner,
    SetTimes,
    SetReplication,
}

const KNOWN: [(&str, &str, Operation); 25] = [
    ("PUT", "CREATE", Operation::Create),
    ("POST", "APPEND", Operation::Append),
    ("GET", "OPEN", Operation::Open),
    ("GET", "GETFILESTATUS", Operation::GetFileStatus),
    ("GET", "LISTSTATUS", Operation::ListStatus),
    ("GET", "LISTSTATUS_BATCH", Operation::ListStatusBatch),
    ("GET", "GETCONTENTSUMMARY", Operation::GetContentSummary),
    ("GET", "GETQUOTAUSAGE", Operation::GetQuotaUsage),
    ("GET", "GETFILECHECKSUM", Operation::GetFileChecksum),
    ("GET", "GETHOMEDIRECTORY", Operation::GetHomeDirectory),
    ("GET", "GETTRASHROOT", Operation::GetTrashRoot),
    ("GET", "GETSERVERDEFAULTS", Operation::GetServerDefaults),
    ("GET", "GET_BLOCK_LOCATIONS", Operation::GetBlockLocations),
    (
        "GET",
        "GETFILEBLOCKLOCATIONS",
        Operation::GetFileBlockLocations,
    ),
    ("GET", "CHECKACCESS", Operation::CheckAccess),
    ("GET", "GETDELEGATIONTOKEN", Operation::GetDelegationToken),
    (
        "PUT",
        "RENEWDELEGATIONTOKEN",
        Operation::RenewDelegationToken,
    ),
    (
        "PUT",
        "CANCELDELEGATIONTOKEN",
        Operation::CancelDelegationToken,
    ),
    ("PUT", "MKDIRS", Operation::MkDirs),
    ("PUT", "RENAME", Operation::Rename),
    ("DELETE", "DELETE", Operation::Delete),
    ("PUT", "SETPERMISSION", Operation::SetPermission),
    ("PUT", "SETOWNER", Operation::SetOwner),
    ("PUT", "SETTIMES", Operation::SetTimes),
    ("PUT", "SETREPLICATION", Operation::SetReplication),
];

/// What HDFS has and Bobbin does not, so that a client is told at once.
const NOT_OFFERED: [&str; 19] = [
    "CONCAT",
    "TRUNCATE",
    "CREATESYMLINK",
    "GETACLSTATUS",
    "SETACL",
    "MODIFYACLENTRIES",
    "REMOVEACL",
    "GETXATTRS",
    "LISTXATTRS",
    "SETXATTR",
    "REMOVEXATTR",
    "CREATESNAPSHOT",
    "DELETESNAPSHOT",
    "GETSNAPSHOTDIFF",
    "SETQUOTA",
    "GETECPOLICY",
    "GETSTORAGEPOLICY",
    "GETALLSTORAGEPOLICY",
    "SETSTORAGEPOLICY",
];

impl Operation {
    /// # Errors
    /// The method has no such operation, in the words by which a client knows an older server.
    pub(super) fn parse(method: &Method, op: &str) -> Result<Operation, Problem> {
        let name = op.to_ascii_uppercase();
        let known = KNOWN
            .iter()
            .find(|(verb, known, _)| method.as_str() == *verb && *known == name);
        if let Some((_, _, operation)) = known {
            return Ok(*operation);
        }
        if NOT_OFFERED.contains(&name.as_str()) {
            return Err(Problem::NotOffered(format!(
                "{name} is not offered by Bobbin"
            )));
        }
        let shown: String = op.chars().flat_map(char::escape_default).take(60).collect();
        Err(Problem::Argument(format!(
            "Invalid value for webhdfs parameter \"op\": {method} has no operation {shown}"
        )))
    }

    /// What the authority function is asked for.
    pub(super) fn authority(self) -> bobbin_rm_core::Operation {
        match self {
            Operation::Create
            | Operation::Append
            | Operation::GetDelegationToken
            | Operation::RenewDelegationToken
            | Operation::CancelDelegationToken
            | Operation::MkDirs
            | Operation::Rename
            | Operation::Delete
            | Operation::SetPermission
            | Operation::SetOwner
            | Operation::SetTimes
            | Operation::SetReplication => bobbin_rm_core::Operation::ChangeFiles,
            Operation::Open
            | Operation::GetFileStatus
            | Operation::ListStatus
            | Operation::ListStatusBatch
            | Operation::GetContentSummary
            | Operation::GetQuotaUsage
            | Operation::GetFileChecksum
            | Operation::GetHomeDirectory
            | Operation::GetTrashRoot
            | Operation::GetServerDefaults
            | Operation::GetBlockLocations
            | Operation::GetFileBlockLocations
            | Operation::CheckAccess => bobbin_rm_core::Operation::ReadFiles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_method_and_name() {
        let create = Operation::parse(&Method::PUT, "create").unwrap();
        assert_eq!(create, Operation::Create);
        let wrong = Operation::parse(&Method::GET, "CREATE");
        assert!(matches!(wrong, Err(Problem::Argument(_))));
        let absent = Operation::parse(&Method::POST, "CONCAT");
        assert!(matches!(absent, Err(Problem::NotOffered(_))));
    }
}
