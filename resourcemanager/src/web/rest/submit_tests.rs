//! The documents are the documentation's examples, shortened.

use axum::http::{HeaderMap, HeaderValue, header};
use bobbin_rm_core::{LaunchContract, ResourceKind, Visibility};

use super::*;

const JSON: &str = r#"{
  "application-id":"application_1404203615263_0001",
  "application-name":"test",
  "am-container-spec":{
    "local-resources":{"entry":[{"key":"AppMaster.jar","value":{
      "resource":"webhdfs://namenode/user/testuser/Distributed%20Shell/AppMaster.jar",
      "type":"FILE","visibility":"APPLICATION","size": 43004,"timestamp": 1405452071209}}]},
    "commands":{"command":"{{JAVA_HOME}}/bin/java -Xmx10m Master 1><LOG_DIR>/AppMaster.stdout"},
    "environment":{"entry":[{"key": "LEN","value": "6"},{"key":"CLASSPATH","value":"{{CLASSPATH}}<CPS>./*"}]}
  },
  "unmanaged-AM":false,
  "max-app-attempts":2,
  "resource":{"memory":1024,"vCores":1},
  "application-type":"YARN",
  "keep-containers-across-application-attempts":false,
  "log-aggregation-context":{"log-include-pattern":"file1"},
  "attempt-failures-validity-interval":3600000,
  "reservation-id":"reservation_1454114874_1",
  "am-black-listing-requests":{"am-black-listing-enabled":true,"disable-failure-threshold":0.01}
}"#;

const XML: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<application-submission-context>
  <application-id>application_1404204891930_0002</application-id>
  <application-name>test</application-name>
  <queue>testqueue</queue>
  <priority>3</priority>
  <am-container-spec>
    <local-resources><entry><key>example</key><value>
      <resource>file:///opt/AppMaster.jar</resource><type>ARCHIVE</type>
      <visibility>PUBLIC</visibility><size>43004</size><timestamp>1405452071209</timestamp>
    </value></entry></local-resources>
    <environment><entry><key>CLASSPATH</key><value>{{CLASSPATH}}&lt;CPS&gt;./*</value></entry></environment>
    <commands><command>{{JAVA_HOME}}/bin/java 1&gt;&lt;LOG_DIR&gt;/out</command></commands>
    <service-data><entry><key>test</key><value>dmFsdWUxMg</value></entry></service-data>
    <credentials><tokens/><secrets><entry><key>secret1</key><value>c2VjcmV0MQ</value></entry></secrets></credentials>
    <application-acls>
      <entry><key>VIEW_APP</key><value>testuser3, testuser4</value></entry>
      <entry><key>MODIFY_APP</key><value>testuser1, testuser2</value></entry>
    </application-acls>
  </am-container-spec>
  <unmanaged-AM>false</unmanaged-AM>
  <max-app-attempts>2</max-app-attempts>
  <resource><memory>1024</memory><vCores>1</vCores></resource>
  <application-type>YARN</application-type>
  <keep-containers-across-application-attempts>true</keep-containers-across-application-attempts>
  <application-tags><tag>tag 2</tag><tag>tag1</tag></application-tags>
  <attempt-failures-validity-interval>3600000</attempt-failures-validity-interval>
</application-submission-context>"#;

async fn parsed(content_type: &'static str, text: String) -> Result<Submission, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let read_it = async {
        let input = input::read(&headers, Body::from(text), ROOT).await?;
        read(&input, 5)
    };
    read_it.await.map_err(|problem| problem.to_string())
}

#[tokio::test]
async fn the_documentations_json() {
    let submission = parsed("application/json", JSON.to_owned()).await.unwrap();
    assert_eq!(submission.name, "test");
    assert_eq!(submission.queue, "default");
    assert_eq!(submission.launch.contract, LaunchContract::Yarn);
    assert_eq!(
        submission.launch.argv,
        ["{{JAVA_HOME}}/bin/java -Xmx10m Master 1><LOG_DIR>/AppMaster.stdout"]
    );
    assert_eq!(
        submission.launch.environment["CLASSPATH"],
        "{{CLASSPATH}}<CPS>./*"
    );
    assert_eq!(submission.resource.memory_mib, 1_024);
    assert_eq!(submission.failures_validity_ms, Some(3_600_000));
    let resource = &submission.launch.local_resources[0];
    assert_eq!(resource.name, "AppMaster.jar");
    assert_eq!(
        resource.source,
        "webhdfs://namenode:9870/user/testuser/Distributed Shell/AppMaster.jar"
    );
    assert_eq!(
        (resource.size_bytes, resource.mtime_ms),
        (43_004, 1_405_452_071_209)
    );
}

#[tokio::test]
async fn the_documentations_xml() {
    let submission = parsed("application/xml", XML.to_owned()).await.unwrap();
    assert_eq!(
        (submission.queue.as_str(), submission.priority),
        ("testqueue", 3)
    );
    assert_eq!(submission.tags, ["tag 2", "tag1"]);
    assert!(submission.keep_containers);
    assert_eq!(submission.view_acl, "testuser3,testuser4");
    assert_eq!(submission.modify_acl, "testuser1,testuser2");
    assert_eq!(submission.launch.service_data["test"], b"value12");
    let resource = &submission.launch.local_resources[0];
    assert_eq!(resource.source, "file:/opt/AppMaster.jar");
    assert_eq!(resource.kind, ResourceKind::Archive);
    assert_eq!(resource.visibility, Visibility::Public);
    let stream = submission.launch.secrets["container_tokens"].0.clone();
    let credentials = Credentials::read(Bytes::from(stream)).unwrap();
    assert_eq!(credentials.secrets[0].alias, "secret1");
    assert_eq!(&credentials.secrets[0].value[..], b"secret1");
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_in_words() {
    for (from, to, words) in [
        (
            "\"application-id\":\"application_1404203615263_0001\",",
            "",
            "new-application",
        ),
        ("application_1404203615263_0001", "job_1", "application id"),
        ("webhdfs://namenode", "hdfs://namenode", "webhdfs"),
        ("webhdfs://namenode", "webhdfs://namenode:x", "URI"),
        ("\"FILE\"", "\"PATTERN\"", "PATTERN"),
        ("\"FILE\"", "\"LINK\"", "LINK"),
        ("\"memory\":1024", "\"memory\":\"much\"", "memory"),
        ("43004", "-1", "size"),
        ("{\"memory\":1024,\"vCores\":1}", "null", "resource"),
    ] {
        let changed = JSON.replace(from, to);
        assert_ne!(changed, JSON);
        let problem = parsed("application/json", changed).await.unwrap_err();
        assert!(problem.contains(words), "{to}: {problem}");
    }
}

#[test]
fn uris_are_taken_apart() {
    let of = |text: &str| {
        url("x", text).ok().map(|url| {
            (
                url.scheme().to_owned(),
                url.host().to_owned(),
                url.port(),
                url.file().to_owned(),
            )
        })
    };
    let is = |scheme: &str, host: &str, port, file: &str| {
        Some((scheme.to_owned(), host.to_owned(), port, file.to_owned()))
    };
    assert_eq!(of("webhdfs://h:1/a%20b"), is("webhdfs", "h", 1, "/a b"));
    assert_eq!(of("file:/a"), is("file", "", -1, "/a"));
    assert_eq!(of("file:///a"), is("file", "", -1, "/a"));
    assert_eq!(of("/a:b"), is("", "", -1, "/a:b"));
    assert_eq!(of("s3a://bucket/k"), is("s3a", "bucket", -1, "/k"));
    for text in [
        "",
        "a",
        "webhdfs://h",
        "webhdfs://h:99999/a",
        "file:/a%00b",
        "file:/%FF",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}
