//! A native application master.

use bobbin_proto::v1;
use bobbin_proto::v1::am_message::Message as AmBody;
use bobbin_proto::v1::application_master_client::ApplicationMasterClient;
use bobbin_proto::v1::rm_message::Message as RmBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Daemon, soon};

/// An application master that does what it is told.
pub(crate) struct Master {
    messages: mpsc::Sender<v1::AmMessage>,
    answers: Streaming<v1::RmMessage>,
}

impl Master {
    pub(crate) async fn attach(daemon: &Daemon, token: &str) -> Master {
        Master::attach_at(daemon, token, "").await
    }

    /// With a page of its own.
    pub(crate) async fn attach_at(daemon: &Daemon, token: &str, tracking_url: &str) -> Master {
        let (messages, stream) = mpsc::channel(16);
        let register = v1::RegisterMaster {
            tracking_url: tracking_url.to_owned(),
            ..Default::default()
        };
        let message = Some(AmBody::Register(register));
        messages.send(v1::AmMessage { message }).await.unwrap();
        let mut client = ApplicationMasterClient::new(daemon.tcp(Some(token)).await);
        let answers = client
            .attach(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        let mut master = Master { messages, answers };
        let answer = master.answer().await;
        assert!(matches!(answer, RmBody::Registered(_)), "{answer:?}");
        master
    }

    async fn answer(&mut self) -> RmBody {
        let answer = soon("a message", self.answers.message()).await.unwrap();
        answer.expect("the stream goes on").message.unwrap()
    }

    /// Asks for `count` containers and waits for the grants.
    pub(crate) async fn ask(&mut self, count: u32) -> Vec<v1::Grant> {
        let ask = v1::Ask {
            place: "*".to_owned(),
            capability: Some(v1::Resource {
                memory_mib: 64,
                vcores: 1,
                countable: vec![],
            }),
            count,
            relax_locality: true,
            ..Default::default()
        };
        self.send(AmBody::Asks(v1::Asks { asks: vec![ask] })).await;
        let answer = self.answer().await;
        let RmBody::Grants(grants) = answer else {
            panic!("{answer:?}")
        };
        grants.grants
    }

    pub(crate) async fn finish(&mut self) {
        let finish = v1::Finish {
            final_status: "SUCCEEDED".to_owned(),
            exit_status: Some(0),
            diagnostics: String::new(),
        };
        self.send(AmBody::Finish(finish)).await;
        loop {
            if let RmBody::FinishAcknowledged(_) = self.answer().await {
                return;
            }
        }
    }

    async fn send(&self, message: AmBody) {
        self.messages
            .send(v1::AmMessage {
                message: Some(message),
            })
            .await
            .unwrap();
    }
}
