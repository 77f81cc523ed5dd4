//! YARN's launch contexts in Bobbin's words.

use bobbin_hadoop::convert::required;
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn;
use bobbin_proto::v1;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::contract::CREDENTIALS;
use crate::launch::shown;

/// The port of a `webhdfs:` URL that names none. Source: `NameNode`'s default HTTP port.
const WEBHDFS_PORT: i32 = 9870;

/// What a path keeps as it is in a URL. Source: RFC 3986, 3.3.
const WEB_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

fn refused(words: impl Into<String>) -> RpcException {
    RpcException::new(ExceptionClass::Yarn, words)
}

/// A launch context with YARN's contract; nothing in it is expanded yet.
///
/// # Errors
/// A retry policy; a local resource that cannot be had, with its name. Everything else is looked at where the native
/// contexts are (`launch::problem`).
pub(super) fn launch_context(
    wire: yarn::ContainerLaunchContext,
) -> Result<v1::LaunchContext, RpcException> {
    let retries = wire.container_retry_context.as_ref();
    if retries.is_some_and(|r| r.retry_policy() != yarn::ContainerRetryPolicy::NeverRetry) {
        return Err(refused(
            "the launch context has a retry policy: a container of Bobbin runs once; start another one",
        ));
    }
    let named = |entry: yarn::StringStringMap| {
        (
            entry.key.unwrap_or_default(),
            entry.value.unwrap_or_default(),
        )
    };
    let mut launch = v1::LaunchContext {
        argv: wire.command,
        environment: wire.environment.into_iter().map(named).collect(),
        local_resources: local_resources(wire.local_resources)?,
        contract: v1::LaunchContract::Yarn.into(),
        service_data: wire
            .service_data
            .into_iter()
            .map(|entry| {
                let value = entry.value.unwrap_or_default();
                (entry.key.unwrap_or_default(), value.to_vec())
            })
            .collect(),
        ..v1::LaunchContext::default()
    };
    if let Some(tokens) = wire.tokens.filter(|tokens| !tokens.is_empty()) {
        launch
            .secrets
            .insert(CREDENTIALS.to_owned(), tokens.to_vec());
    }
    Ok(launch)
}

pub(super) fn local_resources(
    wire: Vec<yarn::StringLocalResourceMap>,
) -> Result<Vec<v1::LocalResource>, RpcException> {
    wire.into_iter().map(local_resource).collect()
}

fn local_resource(entry: yarn::StringLocalResourceMap) -> Result<v1::LocalResource, RpcException> {
    let name = entry.key.unwrap_or_default();
    let missing = |e: bobbin_hadoop::convert::FieldError| {
        refused(format!("LocalResource '{}': {e}", shown(&name)))
    };
    let wire = required("value", entry.value.as_ref()).map_err(missing)?;
    let url = required("resource", wire.resource.as_ref()).map_err(missing)?;
    let kind = match wire.r#type() {
        yarn::LocalResourceType::Archive => v1::ResourceType::Archive,
        yarn::LocalResourceType::File => v1::ResourceType::File,
        yarn::LocalResourceType::Pattern => {
            return Err(refused(format!(
                "LocalResource '{}' has type PATTERN, which Bobbin does not offer: use ARCHIVE",
                shown(&name)
            )));
        }
    };
    let visibility = match wire.visibility {
        None => v1::Visibility::Application,
        Some(_) => match wire.visibility() {
            yarn::LocalResourceVisibility::Public => v1::Visibility::Public,
            yarn::LocalResourceVisibility::Private => v1::Visibility::Private,
            yarn::LocalResourceVisibility::Application => v1::Visibility::Application,
        },
    };
    let number = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| {
            refused(format!(
                "LocalResource '{}': its {field} is {value}, below zero",
                shown(&name)
            ))
        })
    };
    Ok(v1::LocalResource {
        source: source(url),
        // Only a word to the accountants, -1 where nobody knows.
        size: u64::try_from(wire.size()).unwrap_or(0),
        mtime_ms: number("timestamp", wire.timestamp())?,
        sha256: Vec::new(),
        r#type: kind.into(),
        visibility: visibility.into(),
        // YARN gives every localized file the right to be executed.
        executable: true,
        name,
    })
}

/// Where a resource comes from, its path as the client has it. The localizer refuses what it cannot
/// reach, in words.
fn source(url: &yarn::Url) -> String {
    let file = url.file();
    match url.scheme() {
        "" | "file" => format!("file:{file}"),
        scheme => {
            let port = match url.port() {
                port if port > 0 => format!(":{port}"),
                _ if scheme == "webhdfs" => format!(":{WEBHDFS_PORT}"),
                _ => String::new(),
            };
            // Of abfs: the container's name; elsewhere it is nobody's business.
            let container = match (scheme, url.user_info()) {
                ("abfs" | "abfss", name) if !name.is_empty() => format!("{name}@"),
                _ => String::new(),
            };
            // The client has decoded what web servers want encoded. Source: `URL.fromURI`.
            let path = match scheme {
                "http" | "https" => utf8_percent_encode(file, WEB_PATH).to_string(),
                _ => file.to_owned(),
            };
            format!("{scheme}://{container}{}{port}{path}", url.host())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(
        key: &str,
        change: impl FnOnce(&mut yarn::LocalResource),
    ) -> yarn::StringLocalResourceMap {
        let mut value = yarn::LocalResource {
            resource: Some(yarn::Url {
                scheme: Some("webhdfs".into()),
                host: Some("rm".into()),
                port: Some(8088),
                file: Some("/user/a b/x.jar".into()),
                user_info: None,
            }),
            size: Some(5),
            timestamp: Some(7),
            r#type: Some(yarn::LocalResourceType::File.into()),
            visibility: Some(yarn::LocalResourceVisibility::Private.into()),
            ..yarn::LocalResource::default()
        };
        change(&mut value);
        yarn::StringLocalResourceMap {
            key: Some(key.into()),
            value: Some(value),
        }
    }

    #[test]
    fn a_context_comes_over_unexpanded() {
        let launch = launch_context(yarn::ContainerLaunchContext {
            command: vec!["{{JAVA_HOME}}/bin/java".into(), "1><LOG_DIR>/stdout".into()],
            environment: vec![yarn::StringStringMap {
                key: Some("CLASSPATH".into()),
                value: Some("{{PWD}}<CPS>x".into()),
            }],
            tokens: Some(bytes::Bytes::from_static(b"HDTS\0\0\0")),
            local_resources: vec![resource("x.jar", |_| ())],
            ..yarn::ContainerLaunchContext::default()
        })
        .unwrap();
        assert_eq!(launch.contract(), v1::LaunchContract::Yarn);
        assert_eq!(launch.argv[0], "{{JAVA_HOME}}/bin/java");
        assert_eq!(launch.environment["CLASSPATH"], "{{PWD}}<CPS>x");
        assert_eq!(launch.secrets[CREDENTIALS], b"HDTS\0\0\0");
        let file = &launch.local_resources[0];
        assert_eq!(file.source, "webhdfs://rm:8088/user/a b/x.jar");
        assert_eq!((file.size, file.mtime_ms, file.executable), (5, 7, true));
        assert_eq!(file.visibility(), v1::Visibility::Private);
    }

    #[test]
    fn urls_and_refusals() {
        let source = |change: fn(&mut yarn::Url)| {
            let entry = resource("r", |r| change(r.resource.as_mut().unwrap()));
            local_resource(entry).unwrap().source
        };
        assert_eq!(
            source(|u| u.port = Some(-1)),
            "webhdfs://rm:9870/user/a b/x.jar"
        );
        assert_eq!(
            source(|u| u.scheme = Some("file".into())),
            "file:/user/a b/x.jar"
        );
        assert_eq!(
            source(|u| u.scheme = Some("hdfs".into())),
            "hdfs://rm:8088/user/a b/x.jar"
        );
        assert_eq!(
            source(|u| {
                u.scheme = Some("https".into());
                u.port = Some(0);
                u.file = Some("/a b/50%?#.jar".into());
            }),
            "https://rm/a%20b/50%25%3F%23.jar"
        );
        assert_eq!(
            source(|u| {
                u.scheme = Some("abfs".into());
                u.user_info = Some("box".into());
                u.host = Some("acct.dfs.core.windows.net".into());
                u.port = Some(-1);
            }),
            "abfs://box@acct.dfs.core.windows.net/user/a b/x.jar"
        );
        let words = |change: fn(&mut yarn::LocalResource)| {
            local_resource(resource("r", change)).unwrap_err().message
        };
        let retried = launch_context(yarn::ContainerLaunchContext {
            container_retry_context: Some(yarn::ContainerRetryContext {
                retry_policy: Some(yarn::ContainerRetryPolicy::RetryOnAllErrors.into()),
                ..yarn::ContainerRetryContext::default()
            }),
            ..yarn::ContainerLaunchContext::default()
        });
        assert!(retried.unwrap_err().message.contains("runs once"));
        assert!(words(|r| r.r#type = Some(3)).contains("PATTERN"));
        assert!(words(|r| r.timestamp = Some(-5)).contains("timestamp is -5"));
        assert!(words(|r| r.resource = None).contains("resource: is missing"));
    }

    proptest::proptest! {
        #[test]
        fn any_context_is_survived(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            if let Ok(wire) = bobbin_hadoop::wire::decode(bytes::Bytes::from(bytes))
                && let Ok(launch) = launch_context(wire)
            {
                let _ = crate::launch::problem(&launch);
            }
        }
    }
}
