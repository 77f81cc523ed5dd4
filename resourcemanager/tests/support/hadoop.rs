//! Hadoop's IPC as a Java client speaks it, written apart from the server's code: SASL by a token,
//! then calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bobbin_hadoop::proto::common::rpc_response_header::RpcStatus;
use bobbin_hadoop::proto::common::rpc_sasl::{SaslAuth, SaslState};
use bobbin_hadoop::proto::common::{
    IpcConnectionContext, RequestHeader, RpcRequestHeader, RpcResponseHeader, RpcSasl, Token,
    UserInformation,
};
use bobbin_hadoop::wire::{put_delimited, take_message};
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// An exception as its class and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thrown {
    pub(crate) class: String,
    pub(crate) message: String,
}

impl Thrown {
    /// The class without its package.
    pub(crate) fn name(&self) -> &str {
        self.class.rsplit(['.', '$']).next().unwrap()
    }
}

/// One connection.
pub(crate) struct Ipc {
    stream: TcpStream,
    protocol: &'static str,
    next_call: i32,
}

impl Ipc {
    /// Proves itself by a token.
    pub(crate) async fn with_token(
        address: &str,
        protocol: &'static str,
        token: &Token,
    ) -> Result<Ipc, Thrown> {
        let mut ipc = Ipc::open(address, protocol, b"hrpc\x09\x00\xdf").await;
        ipc.sasl(RpcSasl {
            state: SaslState::Negotiate.into(),
            ..RpcSasl::default()
        })
        .await;
        let offer = ipc.sasl_answer().await?;
        let auth = offer
            .auths
            .into_iter()
            .find(|a| a.method == "TOKEN")
            .unwrap();
        let challenge = auth.challenge.clone().unwrap();
        let (response, rspauth) = digest(&challenge, &token.identifier, &token.password);
        ipc.sasl(RpcSasl {
            state: SaslState::Initiate.into(),
            token: Some(response.into()),
            auths: vec![SaslAuth {
                challenge: None,
                ..auth
            }],
            ..RpcSasl::default()
        })
        .await;
        let done = ipc.sasl_answer().await?;
        assert_eq!(done.state(), SaslState::Success);
        assert_eq!(
            done.token.unwrap(),
            rspauth.as_bytes(),
            "the server knows the token too"
        );
        ipc.context(None).await;
        Ok(ipc)
    }

    /// States a name and proves nothing.
    pub(crate) async fn with_name(address: &str, protocol: &'static str, name: &str) -> Ipc {
        let mut ipc = Ipc::open(address, protocol, b"hrpc\x09\x00\x00").await;
        ipc.context(Some(name)).await;
        ipc
    }

    async fn open(address: &str, protocol: &'static str, header: &[u8]) -> Ipc {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(header).await.unwrap();
        Ipc {
            stream,
            protocol,
            next_call: 0,
        }
    }

    async fn context(&mut self, user: Option<&str>) {
        let context = IpcConnectionContext {
            user_info: Some(UserInformation {
                effective_user: user.map(str::to_owned),
                real_user: None,
            }),
            protocol: Some(self.protocol.to_owned()),
        };
        let mut body = header(-3);
        put_delimited(&mut body, &context);
        self.send(&body).await;
    }

    async fn sasl(&mut self, message: RpcSasl) {
        let mut body = header(-33);
        put_delimited(&mut body, &message);
        self.send(&body).await;
    }

    async fn sasl_answer(&mut self) -> Result<RpcSasl, Thrown> {
        let (header, mut rest) = self.answer().await;
        assert_eq!(header.call_id, 0xffff_ffdf);
        outcome(&header)?;
        Ok(take_message(&mut rest).unwrap())
    }

    async fn send(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap();
        // The server may have closed it with a last word.
        let _ = self.stream.write_all(&length.to_be_bytes()).await;
        let _ = self.stream.write_all(body).await;
    }

    async fn answer(&mut self) -> (RpcResponseHeader, Bytes) {
        let read = async {
            let length = self.stream.read_u32().await.unwrap();
            let mut frame = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut frame).await.unwrap();
            Bytes::from(frame)
        };
        let mut frame = soon("an answer", read).await;
        let header = take_message(&mut frame).unwrap();
        (header, frame)
    }

    /// Sends a call whose answer nobody waits for.
    pub(crate) async fn send_call(&mut self, method: &str, request: &impl Message) -> i32 {
        let id = self.next_call;
        self.next_call += 1;
        let mut body = header(id);
        let head = RequestHeader {
            method_name: method.to_owned(),
            declaring_class_protocol_name: self.protocol.to_owned(),
            client_protocol_version: 1,
        };
        put_delimited(&mut body, &head);
        put_delimited(&mut body, request);
        self.send(&body).await;
        id
    }

    /// One call and the bytes of its answer.
    pub(crate) async fn call_bytes(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<Bytes, Thrown> {
        let id = self.send_call(method, request).await;
        let (header, mut rest) = self.answer().await;
        outcome(&header)?;
        assert_eq!(header.call_id, u32::try_from(id).unwrap());
        Ok(bobbin_hadoop::wire::take_delimited(&mut rest).unwrap())
    }

    pub(crate) async fn call<R: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<R, Thrown> {
        let bytes = self.call_bytes(method, request).await?;
        Ok(R::decode(bytes).unwrap())
    }
}

fn header(call_id: i32) -> BytesMut {
    let header = RpcRequestHeader {
        rpc_kind: Some(2),
        rpc_op: Some(0),
        call_id,
        client_id: if call_id == -33 {
            Bytes::new()
        } else {
            Bytes::from_static(b"0123456789abcdef")
        },
        retry_count: Some(if call_id < 0 { -1 } else { 0 }),
        ..RpcRequestHeader::default()
    };
    let mut body = BytesMut::new();
    put_delimited(&mut body, &header);
    body
}

fn outcome(header: &RpcResponseHeader) -> Result<(), Thrown> {
    match header.status() {
        RpcStatus::Success => Ok(()),
        RpcStatus::Error | RpcStatus::Fatal => Err(Thrown {
            class: header.exception_class_name().to_owned(),
            message: header.error_msg().to_owned(),
        }),
    }
}

/// The response of RFC 2831 (md5-sess, auth) and what the server must answer to it.
fn digest(challenge: &[u8], identifier: &[u8], password: &[u8]) -> (String, String) {
    let challenge = std::str::from_utf8(challenge).unwrap();
    let nonce = challenge
        .split("nonce=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let hex = |text: &[u8]| -> String {
        let digest = Md5::digest(text);
        digest.iter().map(|b| format!("{b:02x}")).collect()
    };
    let (user, password) = (BASE64.encode(identifier), BASE64.encode(password));
    let mut a1 = Md5::digest(format!("{user}:default:{password}").as_bytes()).to_vec();
    a1.extend_from_slice(format!(":{nonce}:c0ffee").as_bytes());
    let keyed = |a2: &str| {
        let a2 = hex(a2.as_bytes());
        hex(format!("{}:{nonce}:00000001:c0ffee:auth:{a2}", hex(&a1)).as_bytes())
    };
    let response = format!(
        "charset=utf-8,username=\"{user}\",realm=\"default\",nonce=\"{nonce}\",nc=00000001,\
         cnonce=\"c0ffee\",digest-uri=\"/default\",maxbuf=65536,response={},qop=auth",
        keyed("AUTHENTICATE:/default")
    );
    (response, format!("rspauth={}", keyed(":/default")))
}
