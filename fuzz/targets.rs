//! What is fuzzed: everything that takes bytes of strangers.
//!
//! Shared by the fuzzers here and by the test of `bobbin-hadoop` that replays their corpus. A target
//! panics when what it was given shows a mistake; that it returns says that there was none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bobbin_hadoop::connection::{Connection, Event};
use bobbin_hadoop::convert;
use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::digest::{Challenge, Response, Verified};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::frame::{FrameBuffer, frame, parse_header};
use bobbin_hadoop::protection::{Protection, Quality};
use bobbin_hadoop::proto::common::rpc_sasl::{SaslAuth, SaslState};
use bobbin_hadoop::proto::{common, yarn};
use bobbin_hadoop::tokens::{
    self, Identifier, KEY_BYTES, MasterKey, MasterKeys, WebHdfsIdentifier,
};
use bobbin_hadoop::wire::{self, put_delimited, take_message};
use bobbin_hadoop::wrap::Wrapper;
use bobbin_hadoop::{rpc, sasl};
use bobbin_types::{ApplicationId, AttemptId, ContainerId, NodeId};
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use prost::Message;

/// What is run with each input.
type Target = fn(&[u8]);

/// Every target by its name, which its corpus has too.
pub(crate) const ALL: [(&str, Target); 6] = [
    ("frames", frames),
    ("sasl", sasl_and_digest),
    ("credentials", credentials),
    ("tokens", token_forms),
    ("messages", messages),
    ("connection", connection),
];

const FRAME_BYTES_MAX: u32 = 4096;
const IDENTIFIER: &[u8] = b"who";
const PASSWORD: &[u8] = b"secret";
const NONCE: &str = "bm9uY2U=";

/// Headers and frames, cut anywhere: nothing is lost, added or announced into memory.
pub(crate) fn frames(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else {
        return;
    };
    let _ = parse_header(stream);
    let _ = rpc::parse_request(Bytes::copy_from_slice(stream));
    let mut buffer = FrameBuffer::default();
    let mut taken = Vec::new();
    for part in stream.chunks(usize::from(step) + 1) {
        buffer.bytes_mut().extend_from_slice(part);
        loop {
            match buffer.next_frame(FRAME_BYTES_MAX) {
                Ok(Some(body)) => taken.extend_from_slice(&frame(&body)),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.length > error.limit);
                    return;
                }
            }
        }
        assert!(buffer.missing() <= FRAME_BYTES_MAX);
        assert!(buffer.bytes_mut().capacity() <= 2 * stream.len() + 4096);
    }
    taken.extend_from_slice(buffer.peek());
    assert_eq!(taken, stream);
}

/// Responses of DIGEST-MD5, messages of SASL, protected messages, names of qualities.
pub(crate) fn sasl_and_digest(data: &[u8]) {
    let challenge = Challenge::with_nonce(NONCE.to_owned(), Protection::default());
    if let Ok(response) = Response::parse(data) {
        // Nobody makes one of these by chance; a password that is only the fuzzer's own would do.
        let _ = response.verify(&challenge, PASSWORD);
    }
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(message) = wire::decode::<common::RpcSasl>(bytes.clone()) {
        let _ = sasl::read_negotiate(&message);
        let _ = sasl::read_initiate(message.clone(), true);
        let _ = sasl::read_initiate(message.clone(), false);
        let _ = sasl::read_response(message.clone());
        let _ = sasl::read_wrap(message);
    }
    for quality in [Quality::Integrity, Quality::Privacy] {
        let verified = Verified {
            session_key: [7; 16],
            quality,
            rspauth: String::new(),
        };
        let mut numbered = data.to_vec();
        numbered.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        let mut server = Wrapper::of_server(&verified).expect("a quality with keys");
        let mut client = Wrapper::of_client(&verified).expect("a quality with keys");
        let _ = server.open(&bytes);
        let _ = server.open(&Bytes::from(numbered));
        let sealed = client.seal(data);
        let mut server = Wrapper::of_server(&verified).expect("a quality with keys");
        assert_eq!(server.open(&sealed), Ok(bytes.clone()));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(protection) = text.parse::<Protection>()
    {
        assert_eq!(protection.names().parse(), Ok(protection));
    }
}

/// Credentials in either form: what was read is written to what reads the same.
pub(crate) fn credentials(data: &[u8]) {
    let Ok(read) = Credentials::read(Bytes::copy_from_slice(data)) else {
        return;
    };
    for version in [Version::Writable, Version::Protobuf] {
        assert_eq!(Credentials::read(read.write(version)), Ok(read.clone()));
    }
}

/// Identifiers of every kind, tokens as text; a stranger's never passes.
pub(crate) fn token_forms(data: &[u8]) {
    let keys = MasterKeys::new(MasterKey {
        id: 3,
        secret: [9; KEY_BYTES],
    });
    identifier::<yarn::AmrmTokenIdentifier>(&keys, data);
    identifier::<yarn::NmTokenIdentifier>(&keys, data);
    identifier::<yarn::ContainerTokenIdentifier>(&keys, data);
    identifier::<yarn::YarnDelegationTokenIdentifier>(&keys, data);
    identifier::<WebHdfsIdentifier>(&keys, data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = tokens::from_url_text(text)
    {
        assert!(keys.verify::<WebHdfsIdentifier>(&token).is_err());
        let again = tokens::from_url_text(&tokens::to_url_text(&token));
        assert_eq!(again, Ok(token));
    }
}

fn identifier<I: Identifier>(keys: &MasterKeys, data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let _ = keys.look_up::<I>(&bytes);
    let token = common::Token {
        identifier: bytes.clone(),
        password: Bytes::from_static(&[7; 20]),
        kind: I::KIND.to_owned(),
        service: String::new(),
    };
    assert!(
        keys.verify::<I>(&token).is_err(),
        "nobody guesses a password"
    );
    if let Ok(read) = I::from_bytes(&bytes) {
        let written = read.to_bytes();
        let again = I::from_bytes(&written).map(|i| i.to_bytes());
        assert_eq!(again.ok(), Some(written));
    }
}

/// Messages of all protocols: the first byte says which.
pub(crate) fn messages(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    MESSAGES[usize::from(kind) % MESSAGES.len()](bytes);
    values(bytes);
}

fn round_trip<M: Message + Default>(bytes: &[u8]) {
    if let Ok(message) = wire::decode::<M>(Bytes::copy_from_slice(bytes)) {
        let written = message.encode_to_vec();
        let again = wire::decode::<M>(Bytes::from(written.clone()));
        // Their bytes: a NaN is not equal to itself.
        assert_eq!(again.map(|m| m.encode_to_vec()), Ok(written));
    }
}

/// Ids and resources, to the cluster's own types and back.
fn values(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(wire) = wire::decode::<yarn::ApplicationId>(bytes.clone())
        && let Ok(id) = ApplicationId::try_from(&wire)
    {
        assert_eq!(
            ApplicationId::try_from(&yarn::ApplicationId::from(id)),
            Ok(id)
        );
    }
    if let Ok(wire) = wire::decode::<yarn::ApplicationAttemptId>(bytes.clone())
        && let Ok(id) = AttemptId::try_from(&wire)
    {
        assert_eq!(
            AttemptId::try_from(&yarn::ApplicationAttemptId::from(id)),
            Ok(id)
        );
    }
    if let Ok(wire) = wire::decode::<yarn::ContainerId>(bytes.clone())
        && let Ok(id) = ContainerId::try_from(&wire)
    {
        assert_eq!(ContainerId::try_from(&yarn::ContainerId::from(id)), Ok(id));
    }
    if let Ok(wire) = wire::decode::<yarn::NodeId>(bytes.clone())
        && let Ok(id) = NodeId::try_from(&wire)
    {
        assert_eq!(NodeId::try_from(&yarn::NodeId::from(&id)), Ok(id));
    }
    let kinds = ["gpu".to_owned(), "fpga".to_owned()];
    if let Ok(wire) = wire::decode::<yarn::Resource>(bytes)
        && let Ok(resource) = convert::read_resource(&wire, &kinds)
    {
        let again = convert::read_resource(&convert::write_resource(&resource, &kinds), &kinds);
        assert_eq!(again, Ok(resource));
    }
}

/// Bytes of a script: what a client does, and how it is answered.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// As many bytes as the next one says, or what is left.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

/// A connection with the client's end of it.
struct Exchange {
    connection: Connection,
    /// The last challenge that the server sent.
    challenge: String,
    /// Of the response that was sent last.
    verified: Option<Verified>,
    /// The client's keys, once the proof is done.
    wrapper: Option<Wrapper>,
    is_closed: bool,
    /// Bytes that were sent to the server.
    fed: usize,
}

/// The state machine of a connection, through every state that a client can reach.
pub(crate) fn connection(data: &[u8]) {
    let mut script = Script(data);
    let protection = match script.byte().unwrap_or(0) % 4 {
        0 => Protection::default(),
        1 => Quality::Authentication.into(),
        2 => Quality::Integrity.into(),
        _ => Quality::Privacy.into(),
    };
    let mut exchange = Exchange {
        connection: Connection::new(FRAME_BYTES_MAX, protection),
        challenge: String::new(),
        verified: None,
        wrapper: None,
        is_closed: false,
        fed: 0,
    };
    while let Some(action) = script.byte() {
        let bytes = exchange.act(action, &mut script);
        exchange.feed(&bytes);
        exchange.drive(action & 0x80 == 0);
    }
}

impl Exchange {
    /// What the client sends next.
    fn act(&mut self, action: u8, script: &mut Script<'_>) -> Bytes {
        let plain = match action % 12 {
            0 => return Bytes::copy_from_slice(script.bytes()),
            1 => return Bytes::from_static(b"hrpc\x09\x00\x00"),
            2 => return Bytes::from_static(b"hrpc\x09\x00\xdf"),
            3 => frame(script.bytes()),
            4 => sasl_frame(SaslState::Negotiate, None, Vec::new()),
            5 => {
                let response = self.respond(script.byte().unwrap_or(0));
                sasl_frame(SaslState::Initiate, Some(response), vec![auth("TOKEN")])
            }
            6 => sasl_frame(
                SaslState::Initiate,
                Some(String::new()),
                vec![auth("TOKEN")],
            ),
            7 => sasl_frame(SaslState::Initiate, None, vec![auth("SIMPLE")]),
            8 => {
                let response = self.respond(script.byte().unwrap_or(0));
                sasl_frame(SaslState::Response, Some(response), Vec::new())
            }
            9 => context_frame(script.bytes()),
            10 => call_frame(script.byte().unwrap_or(0), script.bytes()),
            _ => Bytes::copy_from_slice(script.bytes()),
        };
        match &mut self.wrapper {
            // Sometimes as if nothing had been agreed on.
            Some(wrapper) if action & 0x40 == 0 => {
                let token = wrapper.seal(&plain);
                request_frame(-33, &sasl::wrap(token))
            }
            Some(_) | None => plain,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.fed += bytes.len();
        self.connection.space().extend_from_slice(bytes);
        let capacity = self.connection.space().capacity();
        assert!(capacity <= 4 * self.fed + 64 * 1024, "{capacity}");
    }

    /// The response to the last challenge, of a quality; `choice` may spoil it.
    fn respond(&mut self, choice: u8) -> String {
        let quality = Quality::ALL[usize::from(choice) % 3];
        let nonce = self.challenge.split('"').nth(3).unwrap_or(NONCE).to_owned();
        let password = if choice >= 0xf0 {
            b"guess".as_slice()
        } else {
            PASSWORD
        };
        let text = digest(&nonce, password, quality);
        let known = Challenge::with_nonce(nonce, Protection::default());
        let response = Response::parse(text.as_bytes()).expect("a response of ours");
        self.verified = response.verify(&known, password).ok();
        assert!(self.verified.is_some(), "a response of ours is right");
        text
    }

    /// Takes every event; `is_welcome`: how questions are answered.
    fn drive(&mut self, is_welcome: bool) {
        let refusal = || RpcException::new(ExceptionClass::AccessControl, "no");
        let answer = || if is_welcome { Ok(()) } else { Err(refusal()) };
        while let Some(event) = self.connection.poll() {
            assert!(!self.is_closed, "nothing follows the end");
            match event {
                Event::SimpleAsked => self.connection.answer_simple(answer()),
                Event::TokenShown { identifier } => {
                    assert_eq!(identifier, IDENTIFIER);
                    let password = if is_welcome {
                        Ok(PASSWORD)
                    } else {
                        Err(refusal())
                    };
                    self.connection.answer_token(password);
                }
                Event::Introduced { .. } => self.connection.answer_introduced(answer()),
                Event::Send(bytes) => self.receive(&bytes),
                Event::Call(call) => {
                    assert!(self.connection.is_open());
                    let result = if is_welcome {
                        Ok(call.request.clone())
                    } else {
                        Err(refusal())
                    };
                    let bytes = self.connection.answer(&call.key, &result);
                    self.receive(&bytes);
                }
                Event::Closing(_) => {
                    self.is_closed = true;
                    assert!(!self.connection.is_open());
                }
            }
        }
        assert!(self.connection.missing() <= FRAME_BYTES_MAX + 64 * 1024);
    }

    /// Reads what the server sends, as a client would.
    fn receive(&mut self, bytes: &Bytes) {
        if bytes.starts_with(b"HTTP/1.1 ") || bytes.starts_with(&[0xff; 8]) {
            return;
        }
        let Some((header, mut rest)) = answer(bytes.clone()) else {
            panic!("an answer that nobody can read");
        };
        if header.call_id != 0xffff_ffdf || header.status != 0 {
            assert!(
                self.wrapper.is_none(),
                "what was agreed on holds to the end"
            );
            return;
        }
        let message: common::RpcSasl = take_message(&mut rest).expect("an answer of ours");
        let token = message.token.clone().unwrap_or_default();
        match (&mut self.wrapper, SaslState::try_from(message.state)) {
            (Some(wrapper), Ok(SaslState::Wrap)) => {
                let inner = wrapper.open(&token).expect("sealed for us");
                assert!(answer(inner).is_some(), "an answer that nobody can read");
            }
            (None, Ok(SaslState::Negotiate)) => {
                let challenge = message.auths[0].challenge.clone().unwrap_or_default();
                self.challenge = String::from_utf8_lossy(&challenge).into_owned();
            }
            (None, Ok(SaslState::Challenge)) => {
                self.challenge = String::from_utf8_lossy(&token).into_owned();
            }
            (None, Ok(SaslState::Success)) => {
                let verified = self
                    .verified
                    .take()
                    .expect("only a right response succeeds");
                assert_eq!(token, verified.rspauth);
                self.wrapper = Wrapper::of_client(&verified);
            }
            (_, state) => panic!("a server does not send {state:?} here"),
        }
    }
}

/// An answer's header and what follows it.
fn answer(mut bytes: Bytes) -> Option<(common::RpcResponseHeader, Bytes)> {
    let length = bytes.split_to(4.min(bytes.len()));
    let announced = u32::from_be_bytes(length.as_ref().try_into().ok()?);
    if usize::try_from(announced).ok()? != bytes.len() {
        return None;
    }
    let header = take_message(&mut bytes).ok()?;
    Some((header, bytes))
}

fn auth(method: &str) -> SaslAuth {
    let is_token = method == "TOKEN";
    SaslAuth {
        method: method.to_owned(),
        mechanism: if is_token { "DIGEST-MD5" } else { "" }.to_owned(),
        protocol: is_token.then(String::new),
        server_id: is_token.then(|| "default".to_owned()),
        challenge: None,
    }
}

fn request_frame(call_id: i32, message: &impl Message) -> Bytes {
    let header = common::RpcRequestHeader {
        rpc_kind: Some(2),
        rpc_op: Some(0),
        call_id,
        retry_count: Some(-1),
        ..common::RpcRequestHeader::default()
    };
    let mut body = BytesMut::new();
    put_delimited(&mut body, &header);
    put_delimited(&mut body, message);
    frame(&body)
}

fn sasl_frame(state: SaslState, token: Option<String>, auths: Vec<SaslAuth>) -> Bytes {
    let message = common::RpcSasl {
        state: state.into(),
        token: token.map(Bytes::from),
        auths,
        ..common::RpcSasl::default()
    };
    request_frame(-33, &message)
}

fn context_frame(user: &[u8]) -> Bytes {
    let message = common::IpcConnectionContext {
        user_info: Some(common::UserInformation {
            effective_user: Some(String::from_utf8_lossy(user).into_owned()),
            real_user: None,
        }),
        protocol: Some("org.apache.hadoop.yarn.api.ApplicationClientProtocolPB".to_owned()),
    };
    request_frame(-3, &message)
}

fn call_frame(id: u8, message: &[u8]) -> Bytes {
    let header = common::RpcRequestHeader {
        rpc_kind: Some(2),
        rpc_op: Some(0),
        call_id: i32::from(id),
        client_id: Bytes::from_static(b"0123456789abcdef"),
        ..common::RpcRequestHeader::default()
    };
    let call = common::RequestHeader {
        method_name: "getApplications".to_owned(),
        declaring_class_protocol_name: "org.apache.hadoop.yarn.api.ApplicationClientProtocolPB"
            .to_owned(),
        client_protocol_version: 1,
    };
    let mut body = BytesMut::new();
    put_delimited(&mut body, &header);
    put_delimited(&mut body, &call);
    prost::encode_length_delimiter(message.len(), &mut body).expect("a BytesMut grows");
    body.extend_from_slice(message);
    frame(&body)
}

fn md5_hex(text: &[u8]) -> String {
    let hash = Md5::digest(text);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a client with the token answers to a challenge.
fn digest(nonce: &str, password: &[u8], quality: Quality) -> String {
    let user = BASE64.encode(IDENTIFIER);
    let password = BASE64.encode(password);
    let mut a1 = Md5::digest(format!("{user}:default:{password}").as_bytes()).to_vec();
    a1.extend_from_slice(format!(":{nonce}:c0ffee").as_bytes());
    let (body, cipher) = match quality {
        Quality::Authentication => (String::new(), ""),
        Quality::Integrity => (format!(":{}", "0".repeat(32)), ""),
        Quality::Privacy => (format!(":{}", "0".repeat(32)), ",cipher=\"3des\""),
    };
    let a2 = md5_hex(format!("AUTHENTICATE:/default{body}").as_bytes());
    let qop = quality.qop();
    let text = format!("{}:{nonce}:00000001:c0ffee:{qop}:{a2}", md5_hex(&a1));
    format!(
        "charset=utf-8,username=\"{user}\",realm=\"default\",nonce=\"{nonce}\",nc=00000001,\
         cnonce=\"c0ffee\",digest-uri=\"/default\",maxbuf=65536,response={},qop={qop}{cipher}",
        md5_hex(text.as_bytes())
    )
}

macro_rules! kinds {
    ($($message:ty),* $(,)?) => {
        &[$(round_trip::<$message>),*]
    };
}

/// Every message that a stranger can send, and those that we answer.
static MESSAGES: &[Target] = kinds![
    common::RpcRequestHeader,
    common::RpcResponseHeader,
    common::RpcSasl,
    common::IpcConnectionContext,
    common::RequestHeader,
    common::Credentials,
    common::Token,
    yarn::AmrmTokenIdentifier,
    yarn::NmTokenIdentifier,
    yarn::ContainerTokenIdentifier,
    yarn::ClientToAmTokenIdentifier,
    yarn::YarnDelegationTokenIdentifier,
    yarn::GetNewApplicationRequest,
    yarn::GetNewApplicationResponse,
    yarn::GetApplicationReportRequest,
    yarn::GetApplicationReportResponse,
    yarn::SubmitApplicationRequest,
    yarn::SubmitApplicationResponse,
    yarn::FailApplicationAttemptRequest,
    yarn::FailApplicationAttemptResponse,
    yarn::KillApplicationRequest,
    yarn::KillApplicationResponse,
    yarn::GetClusterMetricsRequest,
    yarn::GetClusterMetricsResponse,
    yarn::GetApplicationsRequest,
    yarn::GetApplicationsResponse,
    yarn::GetClusterNodesRequest,
    yarn::GetClusterNodesResponse,
    yarn::GetQueueInfoRequest,
    yarn::GetQueueInfoResponse,
    yarn::GetQueueUserAclsInfoRequest,
    yarn::GetQueueUserAclsInfoResponse,
    common::GetDelegationTokenRequest,
    common::GetDelegationTokenResponse,
    common::RenewDelegationTokenRequest,
    common::RenewDelegationTokenResponse,
    common::CancelDelegationTokenRequest,
    common::CancelDelegationTokenResponse,
    yarn::MoveApplicationAcrossQueuesRequest,
    yarn::MoveApplicationAcrossQueuesResponse,
    yarn::GetApplicationAttemptReportRequest,
    yarn::GetApplicationAttemptReportResponse,
    yarn::GetApplicationAttemptsRequest,
    yarn::GetApplicationAttemptsResponse,
    yarn::GetContainerReportRequest,
    yarn::GetContainerReportResponse,
    yarn::GetContainersRequest,
    yarn::GetContainersResponse,
    yarn::GetNewReservationRequest,
    yarn::GetNewReservationResponse,
    yarn::ReservationSubmissionRequest,
    yarn::ReservationSubmissionResponse,
    yarn::ReservationUpdateRequest,
    yarn::ReservationUpdateResponse,
    yarn::ReservationDeleteRequest,
    yarn::ReservationDeleteResponse,
    yarn::ReservationListRequest,
    yarn::ReservationListResponse,
    yarn::GetNodesToLabelsRequest,
    yarn::GetNodesToLabelsResponse,
    yarn::GetLabelsToNodesRequest,
    yarn::GetLabelsToNodesResponse,
    yarn::GetClusterNodeLabelsRequest,
    yarn::GetClusterNodeLabelsResponse,
    yarn::UpdateApplicationPriorityRequest,
    yarn::UpdateApplicationPriorityResponse,
    yarn::SignalContainerRequest,
    yarn::SignalContainerResponse,
    yarn::UpdateApplicationTimeoutsRequest,
    yarn::UpdateApplicationTimeoutsResponse,
    yarn::GetAllResourceProfilesRequest,
    yarn::GetAllResourceProfilesResponse,
    yarn::GetResourceProfileRequest,
    yarn::GetResourceProfileResponse,
    yarn::GetAllResourceTypeInfoRequest,
    yarn::GetAllResourceTypeInfoResponse,
    yarn::GetClusterNodeAttributesRequest,
    yarn::GetClusterNodeAttributesResponse,
    yarn::GetAttributesToNodesRequest,
    yarn::GetAttributesToNodesResponse,
    yarn::GetNodesToAttributesRequest,
    yarn::GetNodesToAttributesResponse,
    yarn::RegisterApplicationMasterRequest,
    yarn::RegisterApplicationMasterResponse,
    yarn::FinishApplicationMasterRequest,
    yarn::FinishApplicationMasterResponse,
    yarn::AllocateRequest,
    yarn::AllocateResponse,
    yarn::StartContainersRequest,
    yarn::StartContainersResponse,
    yarn::StopContainersRequest,
    yarn::StopContainersResponse,
    yarn::GetContainerStatusesRequest,
    yarn::GetContainerStatusesResponse,
    yarn::IncreaseContainersResourceRequest,
    yarn::IncreaseContainersResourceResponse,
    yarn::ContainerUpdateRequest,
    yarn::ContainerUpdateResponse,
    yarn::ResourceLocalizationRequest,
    yarn::ResourceLocalizationResponse,
    yarn::ReInitializeContainerRequest,
    yarn::ReInitializeContainerResponse,
    yarn::ContainerId,
    yarn::RestartContainerResponse,
    yarn::RollbackResponse,
    yarn::CommitResponse,
    yarn::GetLocalizationStatusesRequest,
    yarn::GetLocalizationStatusesResponse,
    yarn::RefreshQueuesRequest,
    yarn::RefreshQueuesResponse,
    yarn::RefreshNodesRequest,
    yarn::RefreshNodesResponse,
    yarn::RefreshSuperUserGroupsConfigurationRequest,
    yarn::RefreshSuperUserGroupsConfigurationResponse,
    yarn::RefreshUserToGroupsMappingsRequest,
    yarn::RefreshUserToGroupsMappingsResponse,
    yarn::RefreshAdminAclsRequest,
    yarn::RefreshAdminAclsResponse,
    yarn::RefreshServiceAclsRequest,
    yarn::RefreshServiceAclsResponse,
    yarn::GetGroupsForUserRequest,
    yarn::GetGroupsForUserResponse,
    yarn::UpdateNodeResourceRequest,
    yarn::UpdateNodeResourceResponse,
    yarn::RefreshNodesResourcesRequest,
    yarn::RefreshNodesResourcesResponse,
    yarn::AddToClusterNodeLabelsRequest,
    yarn::AddToClusterNodeLabelsResponse,
    yarn::RemoveFromClusterNodeLabelsRequest,
    yarn::RemoveFromClusterNodeLabelsResponse,
    yarn::ReplaceLabelsOnNodeRequest,
    yarn::ReplaceLabelsOnNodeResponse,
    yarn::CheckForDecommissioningNodesRequest,
    yarn::CheckForDecommissioningNodesResponse,
    yarn::RefreshClusterMaxPriorityRequest,
    yarn::RefreshClusterMaxPriorityResponse,
    yarn::NodesToAttributesMappingRequest,
    yarn::NodesToAttributesMappingResponse,
];
