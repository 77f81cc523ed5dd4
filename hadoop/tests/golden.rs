//! Frames recorded between real Hadoop 3.3 clients (Spark 3.5.4, the `yarn` command line) and a
//! server they accepted: decoded, looked at, and encoded again to the same bytes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a vector that cannot be read fails its test"
)]

use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_hadoop::digest::{Challenge, Response, Verified};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::frame::{AuthProtocol, FrameBuffer, frame, parse_header};
use bobbin_hadoop::protection::{Protection, Quality};
use bobbin_hadoop::proto::common::{
    IpcConnectionContext, RequestHeader, RpcRequestHeader, RpcResponseHeader, RpcSasl,
};
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::protocol::{ClientMethod, MasterMethod, Protocol};
use bobbin_hadoop::rpc::{self, CallKey, Request, parse_request};
use bobbin_hadoop::sasl::{self, Choice};
use bobbin_hadoop::tokens::Identifier;
use bobbin_hadoop::wire::{put_delimited, take_message};
use bobbin_hadoop::wrap::{WrapError, Wrapper};
use bobbin_types::{AttemptId, Resource};
use bytes::{Bytes, BytesMut};
use prost::Message;

/// IpcConnectionContext, user root.
const CONTEXT: &str = "0000005c1a0802100018052210d68f6c38e7fd4796a7314b9a65204f8828014012060a04726f6f741a366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e436c69656e7450726f746f636f6c5042";
/// GetNewApplication call 0.
const GET_NEW_APPLICATION: &str = "0000006a1a0802100018002210d68f6c38e7fd4796a7314b9a65204f8828004d0a116765744e65774170706c69636174696f6e12366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e436c69656e7450726f746f636f6c5042180100";
/// Its response: app id 1, maximumCapability 8192 MB / 8 vcores with resource map.
const GET_NEW_APPLICATION_ANSWER: &str = "000000541a0800100018093a10d68f6c38e7fd4796a7314b9a65204f884000380a090801109dd4fa9ea034122b08804010081a140a096d656d6f72792d6d621080401a024d6920001a0e0a0676636f72657310081a002000";
/// SubmitApplication response (empty message: a lone 00 length).
const SUBMIT_ANSWER: &str = "0000001c1a0801100018093a10d68f6c38e7fd4796a7314b9a65204f88400000";
/// SASL NEGOTIATE.
const NEGOTIATE: &str = "0000000e0a08021000184122002801021001";
/// NEGOTIATE with TOKEN challenge and SIMPLE.
const OFFER: &str = "000000b00e08dfffffff0f100018093a0040019f0108001001228c010a05544f4b454e120a4449474553542d4d44351a00220764656661756c742a6c7265616c6d3d2264656661756c74222c6e6f6e63653d22612b41556a6d33712f69376f36315362473244736c4d4c766572732b4e44744f45306256474c3733222c716f703d2261757468222c636861727365743d7574662d382c616c676f726974686d3d6d64352d73657373220a0a0653494d504c451200";
/// INITIATE with digest response.
const INITIATE: &str = "000001380a08021000184122002801ab0210021a8602636861727365743d7574662d382c757365726e616d653d224367304b43516742454a33552b7036674e4241424541453d222c7265616c6d3d2264656661756c74222c6e6f6e63653d22612b41556a6d33712f69376f36315362473244736c4d4c766572732b4e44744f45306256474c3733222c6e633d30303030303030312c636e6f6e63653d226f566c75386a6c6b55457273566448572f68706d4657333469764a72324d304430743274677a6970222c6469676573742d7572693d222f64656661756c74222c6d61786275663d36353533362c726573706f6e73653d30323436666466353161623237626133303539363334616433343533643033332c716f703d61757468221e0a05544f4b454e120a4449474553542d4d44351a00220764656661756c74";
/// SUCCESS rspauth.
const SUCCESS: &str = "0000003c0e08dfffffff0f100018093a0040012c10001a28727370617574683d3933613563643737366666383332643536383233383063663831386464643466";
/// IpcConnectionContext, empty userInfo.
const MASTER_CONTEXT: &str = "000000561a08021000180522108a3ac329b5cd4c0c89662916a25594b728013a12001a366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e4d617374657250726f746f636f6c5042";
/// RegisterApplicationMaster.
const REGISTER: &str = "000000991a08021000180022108a3ac329b5cd4c0c89662916a25594b72800550a1972656769737465724170706c69636174696f6e4d617374657212366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e4d617374657250726f746f636f6c50421801270a093139322e302e322e3210a9cd021a16687474703a2f2f3139322e302e322e323a3436333831";
/// Its response.
const REGISTER_ANSWER: &str = "000000661a0800100018093a108a3ac329b5cd4c0c89662916a25594b740004a0a2b08804010081a140a096d656d6f72792d6d621080401a024d6920001a0e0a0676636f72657310081a0020001210787878787878787878787878787878782a0764656661756c743800";
/// Allocate with one ask (1408 MB, 1 vcore, 1 container).
const ALLOCATE: &str = "000000ac1a08021000180222108a3ac329b5cd4c0c89662916a25594b72800440a08616c6c6f6361746512366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e4d617374657250726f746f636f6c504218014b0a400a02080012012a1a2b08800b10011a140a096d656d6f72792d6d6210800b1a024d6920001a0e0a0676636f72657310011a002000200128013a040801100040001a0020002dcdcccc3d";
/// Two frames in a row: connection context after a token, getApplicationReport.
const CONTEXT_AND_REPORT: &str = "000000561a08021000180522105a4a8c92a6624ef192af5a29899187e128013a12001a366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e436c69656e7450726f746f636f6c5042000000731a08021000180022105a4a8c92a6624ef192af5a29899187e12800500a146765744170706c69636174696f6e5265706f727412366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e436c69656e7450726f746f636f6c50421801060a0408011005";
/// getApplicationReport of another call.
const REPORT: &str = "000000731a08021000180222105a4a8c92a6624ef192af5a29899187e12800500a146765744170706c69636174696f6e5265706f727412366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e436c69656e7450726f746f636f6c50421801060a0408021005";
/// ERROR answer: ApplicationNotFoundException.
const NOT_FOUND: &str = "000000d2d001080010011809223e6f72672e6170616368652e6861646f6f702e7961726e2e657863657074696f6e732e4170706c69636174696f6e4e6f74466f756e64457863657074696f6e2a724170706c69636174696f6e207769746820696420276170706c69636174696f6e5f355f303030312720646f65736e277420657869737420696e20524d2e20506c6561736520636865636b207468617420746865206a6f62207375626d697373696f6e20776173207375636365737366756c2e30013a105a4a8c92a6624ef192af5a29899187e14000";

/// The client's first protected message with auth-conf (3DES): CONTEXT_AND_REPORT.
const PRIVATE_FIRST: &str = "000000f80a08021000184122002801eb0110051ae6018ee2d60a43cfdcbe6f09f3bb91a1f152c3416e84d492ec57ceab13a975ec7bc4ae33fc0bcc2f4c93504319d2f2831cad3e1b2bd19141867c49de5de8d34edb70f57382d7b79b6dd58c39e209b4500fd406626f62aac1fd803f80701946f6173a5f0bec0557d041755844da8e47ecad3bc94494fe234325c40bb0b1bc9244bd492e8e5b29839298b1a2346747e20b360bd89d5a903a720182b8f21905f23a2af9f326b24a4ff251e09619de383d23621472e2833e9977c2542526a9d52458c1f9c2558af2c129e6d62678e65085ac8f690420ded426ef260879804403855fbcce000100000000";
/// Its second: REPORT.
const PRIVATE_SECOND: &str = "000000a00a08021000184122002801930110051a8e01084e4d2eba0fefc6bab9efb4821f9c1dce42c36926eade3b906ec5b3d5b3108cfbc63909568a97cad5e8e6dcbf56fafff10738548af74aa695123ee436676ee72f62d4bbcdc01e0804fa13931f00b1c57318d8eac32f329303daf04ffb0192301966f39f44275878a4998c4c089acef9373735797d8f77664cfa7fe1e8f4505de01fc697a5ac2c7f000100000001";
/// The first of the server's: NOT_FOUND.
const PRIVATE_ANSWER: &str = "000001000a08dfffffff0f10001809f30110051aee01864c11f779b292306e9e0ca81d392ba51dfc49981e736939d8babeb3cd32924142022b167d471ae0684249b268eb17a8e531c92aab911a15b495f420d8967ba7270be867cc9244334deb8edfebbebec6326c6e9421d1a789814518789bdbf4a8e818f7c671efba221afcf1f39338bfb0832afffd81f187d8b93b2e72b4bc3317830209bebbbf30c79fc99bf53c79d1cb23e753db2f9d4629760d9966225d9814d20db59175f16d18c5be220aa30ff41992167e6d0d37124384cd7a62ffc5c1077c7510b20e5b5d17dda413ab52d38f37db9d0b6eb60557a7eead1f5c96dad6192160bbbbea20f43b000100000000";
/// A client's second protected message with auth-int, over another connection.
const SIGNED_SECOND: &str = "000000990a080210001841220028018c0110051a8701000000731a080210001802221007923787bbe64aada99fd41e9a10c79b2800500a146765744170706c69636174696f6e5265706f727412366f72672e6170616368652e6861646f6f702e7961726e2e6170692e4170706c69636174696f6e436c69656e7450726f746f636f6c50421801060a040802100589d03e2ccdc0509e1a42000100000001";

fn hex(text: &str) -> Bytes {
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// The frames in a recorded stream, without their lengths.
fn frames(text: &str) -> Vec<Bytes> {
    let mut buffer = FrameBuffer::default();
    buffer.bytes_mut().extend_from_slice(&hex(text));
    let mut found = Vec::new();
    while let Some(next) = buffer.next_frame(100_000).unwrap() {
        found.push(next);
    }
    assert!(buffer.is_empty());
    found
}

fn only(text: &str) -> Bytes {
    let frames = frames(text);
    assert_eq!(frames.len(), 1);
    frames.into_iter().next().unwrap()
}

/// Decodes the messages of a frame, encodes them again, and demands the same bytes.
macro_rules! exactly {
    ($frame:expr, $($message:ty),+) => {{
        let original: Bytes = $frame;
        let mut rest = original.clone();
        let mut again = BytesMut::new();
        let messages = ($({
            let message: $message = take_message(&mut rest).unwrap();
            put_delimited(&mut again, &message);
            message
        },)+);
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
        assert_eq!(again, original);
        messages
    }};
}

#[test]
fn connection_headers() {
    let header = |text| parse_header(&hex(text)).unwrap();
    assert_eq!(header("68727063090000"), Some(AuthProtocol::None));
    assert_eq!(header("687270630900df"), Some(AuthProtocol::Sasl));
}

#[test]
fn contexts() {
    let (header, context) = exactly!(only(CONTEXT), RpcRequestHeader, IpcConnectionContext);
    assert_eq!((header.call_id, header.retry_count()), (-3, -1));
    assert_eq!(context.user_info.unwrap().effective_user(), "root");
    assert_eq!(
        Protocol::from_name(&context.protocol.unwrap()),
        Some(Protocol::ApplicationClient)
    );
    let (_, context) = exactly!(only(MASTER_CONTEXT), RpcRequestHeader, IpcConnectionContext);
    assert_eq!(context.user_info.unwrap().effective_user, None);
    assert_eq!(
        Protocol::from_name(&context.protocol.unwrap()),
        Some(Protocol::ApplicationMaster)
    );
}

#[test]
fn calls_of_a_client() {
    exactly!(
        only(GET_NEW_APPLICATION),
        RpcRequestHeader,
        RequestHeader,
        yarn::GetNewApplicationRequest
    );
    let Request::Call(call) = parse_request(only(GET_NEW_APPLICATION)).unwrap() else {
        panic!("no call");
    };
    assert_eq!(
        ClientMethod::from_name(&call.method),
        Some(ClientMethod::GetNewApplication)
    );
    assert_eq!((call.key.id, call.key.retry_count), (0, 0));
    assert!(call.request.is_empty());

    let both = frames(CONTEXT_AND_REPORT);
    assert_eq!(both.len(), 2);
    exactly!(both[0].clone(), RpcRequestHeader, IpcConnectionContext);
    for frame in [both[1].clone(), only(REPORT)] {
        let (_, header, request) = exactly!(
            frame,
            RpcRequestHeader,
            RequestHeader,
            yarn::GetApplicationReportRequest
        );
        assert_eq!(header.method_name, "getApplicationReport");
        let id = request.application_id.unwrap();
        assert_eq!(id.cluster_timestamp(), 5);
    }
}

#[test]
fn answers_to_a_client() {
    let (header, response) = exactly!(
        only(GET_NEW_APPLICATION_ANSWER),
        RpcResponseHeader,
        yarn::GetNewApplicationResponse
    );
    // And as the server builds it.
    let key = CallKey {
        id: 0,
        client_id: header.client_id().to_vec().into(),
        retry_count: 0,
    };
    let capability = bobbin_hadoop::convert::write_resource(&Resource::new(8192, 8), &[]);
    assert_eq!(response.maximum_capability.as_ref(), Some(&capability));
    let built = rpc::success(&key, &response.encode_to_vec());
    assert_eq!(built, hex(GET_NEW_APPLICATION_ANSWER));
    let built = rpc::success(&CallKey { id: 1, ..key }, b"");
    assert_eq!(built, hex(SUBMIT_ANSWER));
}

#[test]
fn an_exception() {
    let (header,) = exactly!(only(NOT_FOUND), RpcResponseHeader);
    let key = CallKey {
        id: 0,
        client_id: header.client_id().to_vec().into(),
        retry_count: 0,
    };
    let exception = RpcException::new(ExceptionClass::ApplicationNotFound, header.error_msg());
    assert_eq!(rpc::error(&key, &exception), hex(NOT_FOUND));
}

#[test]
fn the_sasl_exchange() {
    let Request::Sasl(negotiate) = parse_request(only(NEGOTIATE)).unwrap() else {
        panic!("no SASL message");
    };
    exactly!(only(NEGOTIATE), RpcRequestHeader, RpcSasl);
    assert_eq!(sasl::read_negotiate(&negotiate), Ok(()));

    let nonce = "a+AUjm3q/i7o61SbG2DslMLvers+NDtOE0bVGL73".to_owned();
    let challenge = Challenge::with_nonce(nonce, Quality::Authentication.into());
    assert_eq!(rpc::sasl(&sasl::offer(&challenge, true)), hex(OFFER));

    let (_, initiate) = exactly!(only(INITIATE), RpcRequestHeader, RpcSasl);
    let Ok(Choice::Token(response)) = sasl::read_initiate(initiate, true) else {
        panic!("no token");
    };
    let response = bobbin_hadoop::digest::Response::parse(&response).unwrap();
    let identifier = yarn::AmrmTokenIdentifier::from_bytes(response.identifier()).unwrap();
    let attempt: AttemptId = identifier
        .app_attempt_id
        .as_ref()
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!((attempt.application.sequence, attempt.attempt), (1, 1));
    assert_eq!(identifier.to_bytes(), response.identifier());
    let password = bobbin_hadoop::tokens::password(b"bobbin-golden-vector", response.identifier());
    let verified = response.verify(&challenge, &password).unwrap();
    assert_eq!(rpc::sasl(&sasl::success(verified.rspauth)), hex(SUCCESS));
}

/// The token of the protected exchanges: `root`'s, who is told to sign with this key.
const PROTECTED_IDENTIFIER: &str = "0a04726f6f7412001a0020e1f39d9fa03428e1d0f9a0a03430013801";

/// What the server made of a recorded response; checks `rspauth`.
fn verified(nonce: &str, cnonce: &str, qop: &str, response: &str, rspauth: &str) -> Verified {
    let identifier = hex(PROTECTED_IDENTIFIER);
    let username = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &identifier);
    let text = format!(
        "charset=utf-8,username=\"{username}\",realm=\"default\",nonce=\"{nonce}\",nc=00000001,\
         cnonce=\"{cnonce}\",digest-uri=\"/default\",maxbuf=65536,response={response},qop={qop}"
    );
    let password = bobbin_hadoop::tokens::password(b"bobbin-golden-client-key", &identifier);
    let challenge = Challenge::with_nonce(nonce.to_owned(), Protection::default());
    let response = Response::parse(text.as_bytes()).unwrap();
    let verified = response.verify(&challenge, &password).unwrap();
    assert_eq!(verified.rspauth, format!("rspauth={rspauth}"));
    verified
}

/// The token of a protected message, from either side.
fn wrapped(frame: &str, from_client: bool) -> Bytes {
    let mut rest = only(frame);
    let message: RpcSasl = if from_client {
        let Request::Sasl(message) = parse_request(rest).unwrap() else {
            panic!("no SASL message");
        };
        message
    } else {
        let header: RpcResponseHeader = take_message(&mut rest).unwrap();
        assert_eq!(header.call_id, 0xffff_ffdf);
        take_message(&mut rest).unwrap()
    };
    sasl::read_wrap(message).unwrap()
}

#[test]
fn a_private_connection() {
    let verified = verified(
        "Pd7cUp1kW6bBL0EPAmS6VrD71SPfCdTnEiak4bja",
        "WpeGXIC6kbZeAAhVY1WkGdAE6mvFJSJGDYxprUcV",
        "auth-conf,cipher=\"3des\"",
        "33f81b602951b4c0ad045e3a6c5d9e4f",
        "2fedbb83168f2c7097ed65d4b90629ee",
    );
    assert_eq!(verified.quality, Quality::Privacy);
    let key = "dd83d0d3eab25470e1f1e13c160b1075";
    assert_eq!(verified.session_key.as_slice(), hex(key));
    let mut wrapper = Wrapper::of_server(&verified).unwrap();
    let (first, second) = (wrapped(PRIVATE_FIRST, true), wrapped(PRIVATE_SECOND, true));
    assert_eq!(wrapper.open(&first), Ok(hex(CONTEXT_AND_REPORT)));
    // The chain goes on from message to message.
    assert_eq!(wrapper.open(&second), Ok(hex(REPORT)));
    let sequence = WrapError::Sequence {
        found: 1,
        expected: 2,
    };
    assert_eq!(wrapper.open(&second), Err(sequence));
    let sealed = wrapper.seal(&hex(NOT_FOUND));
    assert_eq!(sealed, wrapped(PRIVATE_ANSWER, false));
    // A server's frame may carry more in its header than the recorded one did.
    let frame = rpc::sasl(&sasl::wrap(sealed.clone()));
    let (_, message) = exactly!(frame.slice(4..), RpcResponseHeader, RpcSasl);
    assert_eq!(message.token, Some(sealed));
}

#[test]
fn a_signed_connection() {
    let verified = verified(
        "ww6VIkZGLCG3vI9tUptMLjkuCMSKeN1TX+caW0pg",
        "fE40xY7b9BGQS5fHGtvhXk0wwaaidwMg7o7eW+rP",
        "auth-int",
        "1c196dfb6333706fe73faea3fbf4cd58",
        "44b2b940743920b67dcbc61feac81913",
    );
    assert_eq!(verified.quality, Quality::Integrity);
    let mut wrapper = Wrapper::of_server(&verified).unwrap();
    let second = wrapped(SIGNED_SECOND, true);
    let sequence = WrapError::Sequence {
        found: 1,
        expected: 0,
    };
    assert_eq!(wrapper.open(&second), Err(sequence));
    // What the recorded one came after was not kept.
    let first = exactly_signed(&verified, b"anything");
    assert_eq!(wrapper.open(&first), Ok(Bytes::from_static(b"anything")));
    let message = wrapper.open(&second).unwrap();
    assert_eq!(message.slice(4..), frames_of(&message)[0]);
    let call = parse_request(frames_of(&message)[0].clone()).unwrap();
    assert!(matches!(call, Request::Call(call) if call.method == "getApplicationReport"));
}

/// A client's first message, signed with its key.
fn exactly_signed(verified: &Verified, message: &[u8]) -> Bytes {
    use hmac::{KeyInit as _, Mac as _};
    // Kic of the page of vectors.
    let key = hex("1f91d5d37633a40b66d2b4ad0be900bb");
    assert_eq!(
        verified.session_key.as_slice(),
        hex("eed10810c3cec3210712c639fc51e586")
    );
    let mut mac = hmac::Hmac::<md5::Md5>::new_from_slice(&key).unwrap();
    mac.update(&[0; 4]);
    mac.update(message);
    let mut token = BytesMut::from(message);
    token.extend_from_slice(&mac.finalize().into_bytes()[..10]);
    token.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    token.freeze()
}

fn frames_of(stream: &[u8]) -> Vec<Bytes> {
    let text: String = stream.iter().map(|b| format!("{b:02x}")).collect();
    frames(&text)
}

#[test]
fn a_master() {
    let (_, header, request) = exactly!(
        only(REGISTER),
        RpcRequestHeader,
        RequestHeader,
        yarn::RegisterApplicationMasterRequest
    );
    assert_eq!(
        MasterMethod::from_name(&header.method_name),
        Some(MasterMethod::RegisterApplicationMaster)
    );
    assert_eq!(request.host(), "192.0.2.2");
    let (_, response) = exactly!(
        only(REGISTER_ANSWER),
        RpcResponseHeader,
        yarn::RegisterApplicationMasterResponse
    );
    assert_eq!(response.queue(), "default");
    let (_, _, request) = exactly!(
        only(ALLOCATE),
        RpcRequestHeader,
        RequestHeader,
        yarn::AllocateRequest
    );
    let [ask] = request.ask.as_slice() else {
        panic!("{} asks", request.ask.len());
    };
    let capability = ask.capability.as_ref().unwrap();
    assert_eq!(
        bobbin_hadoop::convert::read_resource(capability, &[]),
        Ok(Resource::new(1408, 1))
    );
    assert_eq!((ask.num_containers(), ask.resource_name()), (1, "*"));
}

#[test]
fn a_token_file() {
    // HDTS, version 0, one token, no secret.
    let text = "4844545300010568616c6c6f03616263026465024e4d03683a3100";
    let credentials = Credentials::read(hex(text)).unwrap();
    let (alias, token) = &credentials.tokens[0];
    assert_eq!((alias.as_str(), token.kind.as_str()), ("hallo", "NM"));
    assert_eq!(token.service, "h:1");
    assert_eq!(credentials.write(Version::Writable), hex(text));
}

#[test]
fn frames_have_their_length_before_them() {
    assert_eq!(frame(b"ab"), hex("000000026162"));
}
