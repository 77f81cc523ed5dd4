//! Hadoop's own command line calls the server: without a token, and with a token file.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bobbin_hadoop::connection::Proof;
use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::protection::{Protection, Quality};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::{ClientMethod, Protocol};
use bobbin_hadoop::server::{
    AuditedCall, Authenticator, Caller, Ended, Limits, Outcome, Peer, Service, TokenProof, serve,
};
use bobbin_hadoop::tokens::{KEY_BYTES, MasterKey, MasterKeys};
use bobbin_hadoop::wire;
use bytes::Bytes;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::java::Java;

const REMEDY: &str = "This cluster wants a token: run 'bobbin token create --hadoop FILE'";

struct Doorman {
    keys: MasterKeys,
    simple: bool,
}

impl Authenticator for Doorman {
    type Principal = String;

    async fn simple(&self, _: &Peer) -> Result<String, RpcException> {
        if self.simple {
            Ok("by its socket".to_owned())
        } else {
            Err(RpcException::new(ExceptionClass::AccessControl, REMEDY))
        }
    }

    async fn token(
        &self,
        _: &Peer,
        identifier: &Bytes,
    ) -> Result<TokenProof<String>, RpcException> {
        let found = self
            .keys
            .look_up::<yarn::YarnDelegationTokenIdentifier>(identifier);
        let (identifier, password) =
            found.map_err(|e| RpcException::new(ExceptionClass::InvalidToken, e.to_string()))?;
        Ok(TokenProof {
            password: password.to_vec(),
            principal: identifier.owner().to_owned(),
        })
    }
}

/// Knows one application, whose user is who asks.
#[derive(Default)]
struct OneApplication {
    proofs: Mutex<Vec<Proof>>,
    contexts: Mutex<Vec<Option<String>>>,
}

impl Service<String> for OneApplication {
    async fn call(
        &self,
        caller: &Caller<String>,
        protocol: &str,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        assert_eq!(
            Protocol::from_name(protocol),
            Some(Protocol::ApplicationClient)
        );
        self.proofs.lock().unwrap().push(caller.proof.clone());
        let id = yarn::ApplicationId {
            id: Some(7),
            cluster_timestamp: Some(1_700_000_000_000),
        };
        if ClientMethod::from_name(method) == Some(ClientMethod::GetApplicationReport) {
            return Err(RpcException::new(
                ExceptionClass::ApplicationNotFound,
                "there is only application_1700000000000_0007",
            ));
        }
        if ClientMethod::from_name(method) != Some(ClientMethod::GetApplications) {
            return Err(RpcException::not_offered(method, "it is a test"));
        }
        wire::decode::<yarn::GetApplicationsRequest>(request)
            .map_err(|e| RpcException::malformed(method, &e))?;
        let report = yarn::ApplicationReport {
            application_id: Some(id),
            user: Some(caller.principal.clone()),
            name: Some("golden".to_owned()),
            queue: Some("default".to_owned()),
            application_type: Some("SPARK".to_owned()),
            yarn_application_state: Some(yarn::YarnApplicationState::Running.into()),
            final_application_status: Some(yarn::FinalApplicationStatus::AppUndefined.into()),
            ..yarn::ApplicationReport::default()
        };
        let response = yarn::GetApplicationsResponse {
            applications: vec![report],
        };
        Ok(response.encode_to_vec().into())
    }

    fn audit(&self, _: &Caller<String>, call: &AuditedCall<'_>, _: Outcome<'_>) {
        let context = call.caller_context.map(str::to_owned);
        self.contexts.lock().unwrap().push(context);
    }
}

fn keys() -> MasterKeys {
    MasterKeys::new(MasterKey {
        id: 3,
        secret: [9; KEY_BYTES],
    })
}

/// A server, and the configuration of its clients in the class path.
async fn start(
    java: &Java,
    simple: bool,
    offered: Protection,
) -> (SocketAddr, Arc<OneApplication>, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(OneApplication::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let doorman = Doorman {
        keys: keys(),
        simple,
    };
    let observer = |peer: SocketAddr, reason: &Ended| eprintln!("{peer}: {reason}");
    let shared = service.clone();
    tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        serve(
            listener,
            doorman,
            shared,
            observer,
            Limits {
                protection: offered,
                ..Limits::default()
            },
            shutdown,
        )
        .await;
    });
    let site = format!(
        "<configuration><property><name>yarn.resourcemanager.address</name>\
         <value>{address}</value></property></configuration>"
    );
    std::fs::write(java.folder.path().join("yarn-site.xml"), site).unwrap();
    (address, service, stop)
}

/// What the command prints, both streams, and whether it succeeded.
async fn list(
    java: &Java,
    arguments: &[&str],
    token_file: Option<&std::path::Path>,
) -> (bool, String) {
    let mut command = java.command("org.apache.hadoop.yarn.client.cli.ApplicationCLI");
    command.args(arguments).env("HADOOP_USER_NAME", "mallory");
    command.env_remove("HADOOP_TOKEN_FILE_LOCATION");
    if let Some(file) = token_file {
        command.env("HADOOP_TOKEN_FILE_LOCATION", file);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

const LIST: [&str; 2] = ["application", "-list"];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_command_line_without_a_token() {
    for java in Java::each("the_command_line_without_a_token", "CheckNames.java") {
        let (_, service, _stop) = start(&java, true, Protection::default()).await;
        let (good, text) = list(&java, &LIST, None).await;
        assert!(good, "{text}");
        assert!(text.contains("application_1700000000000_0007"), "{text}");
        // Not the user it states.
        assert!(
            text.contains("by its socket") && !text.contains("mallory"),
            "{text}"
        );
        assert_eq!(*service.proofs.lock().unwrap(), [Proof::Simple]);
        let context = Some("CLI".to_owned());
        assert_eq!(*service.contexts.lock().unwrap(), [context]);

        // An exception arrives as its class, at once.
        let id = "application_1700000000000_0008";
        let (_, text) = list(&java, &["application", "-status", id], None).await;
        assert!(
            text.contains("doesn't exist") || text.contains("there is only"),
            "{text}"
        );
    }
}

/// A user's tokens, signed by a cluster's keys.
fn tokens(keys: &MasterKeys, owner: &str, address: SocketAddr) -> Credentials {
    let identifier = yarn::YarnDelegationTokenIdentifier {
        owner: Some(owner.to_owned()),
        ..yarn::YarnDelegationTokenIdentifier::default()
    };
    let mut credentials = Credentials::default();
    credentials.add(keys.issue(identifier, address.to_string()));
    credentials
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_command_line_with_a_token_file() {
    for java in Java::each("the_command_line_with_a_token_file", "CheckNames.java") {
        let (address, service, _stop) = start(&java, false, Protection::default()).await;
        let credentials = tokens(&keys(), "carol", address);
        let file = java.folder.path().join("token");
        for version in [Version::Writable, Version::Protobuf] {
            std::fs::write(&file, credentials.write(version)).unwrap();
            let (good, text) = list(&java, &LIST, Some(&file)).await;
            assert!(good && text.contains("carol"), "{version:?}: {text}");
        }
        let proofs = std::mem::take(&mut *service.proofs.lock().unwrap());
        assert!(
            proofs.len() == 2 && !proofs.contains(&Proof::Simple),
            "{proofs:?}"
        );

        // Without the file the remedy is on the terminal at once.
        let (good, text) = list(&java, &LIST, None).await;
        assert!(!good && text.contains(REMEDY), "{text}");

        // A token of another cluster.
        let stranger = MasterKeys::new(MasterKey {
            id: 3,
            secret: [1; KEY_BYTES],
        });
        let credentials = tokens(&stranger, "carol", address);
        std::fs::write(&file, credentials.write(Version::Writable)).unwrap();
        let (good, text) = list(&java, &LIST, Some(&file)).await;
        assert!(!good && text.contains("Mismatched response"), "{text}");
        assert!(service.proofs.lock().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_command_line_protects_its_calls() {
    for java in Java::each("the_command_line_protects_its_calls", "CheckNames.java") {
        let file = java.folder.path().join("token");
        // What is offered, what the client wants, and whether they agree.
        for (offered, wanted, agree) in [
            (Protection::default(), "integrity", true),
            (Protection::default(), "privacy", true),
            (Quality::Privacy.into(), "privacy,authentication", true),
            (Quality::Privacy.into(), "authentication", false),
        ] {
            let (address, service, _stop) = start(&java, false, offered).await;
            let credentials = tokens(&keys(), "carol", address);
            std::fs::write(&file, credentials.write(Version::Writable)).unwrap();
            let site = format!(
                "<configuration><property><name>hadoop.rpc.protection</name>\
                 <value>{wanted}</value></property></configuration>"
            );
            std::fs::write(java.folder.path().join("core-site.xml"), site).unwrap();
            let (good, text) = list(&java, &LIST, Some(&file)).await;
            let calls = service.proofs.lock().unwrap().len();
            if agree {
                assert!(good && text.contains("carol"), "{wanted}: {text}");
                assert_eq!(calls, 1);
            } else {
                assert!(!good && text.contains("No common protection"), "{text}");
                assert_eq!(calls, 0);
            }
        }
    }
}
