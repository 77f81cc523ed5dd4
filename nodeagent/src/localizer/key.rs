//! Which requests are for the same copy.

use bobbin_proto::v1;

use super::Asker;
use crate::archive::{ArchiveError, ArchiveKind};
use crate::cache::{CacheKey, Scope};
use crate::fetch::Source;
use crate::remote::{RemoteFile, Said};

/// Who may share a copy, by the request's word.
fn scope_of(resource: &v1::LocalResource, asker: &Asker) -> Scope {
    let user = asker.account.name.clone();
    let application = asker.application.clone();
    match resource.visibility() {
        v1::Visibility::Public => Scope::Public,
        v1::Visibility::Private => Scope::Private { user },
        v1::Visibility::Application => Scope::Application { user, application },
    }
}

pub(super) fn cache_key(resource: &v1::LocalResource, asker: &Asker) -> CacheKey {
    // Of a webhdfs: file the time is always compared, as YARN does.
    let by_yarns_rules = resource.source.starts_with("webhdfs:");
    let certain = by_yarns_rules || !resource.sha256.is_empty() || resource.mtime_ms > 0;
    let key = CacheKey {
        scope: scope_of(resource, asker),
        source: resource.source.clone(),
        size: resource.size,
        mtime_ms: resource.mtime_ms,
        sha256: resource.sha256.clone(),
        validator: String::new(),
        archive: resource.r#type() == v1::ResourceType::Archive,
        // Source: `FSDownload.changePermissions`, which makes everything executable.
        executable: resource.executable || by_yarns_rules,
        only_for: String::new(),
    };
    if certain { key } else { for_one(key, asker) }
}

/// Without digest, time or tag nobody can say whether a copy is still what is meant.
fn for_one(key: CacheKey, asker: &Asker) -> CacheKey {
    CacheKey {
        scope: Scope::Application {
            user: asker.account.name.clone(),
            application: asker.application.clone(),
        },
        only_for: asker.container.clone(),
        ..key
    }
}

/// A copy with a digest is known by that, wherever it comes from; another one by its server's word.
pub(super) fn remote_key(
    resource: &v1::LocalResource,
    asker: &Asker,
    file: &RemoteFile,
    said: Option<&Said>,
) -> CacheKey {
    let is_archive = resource.r#type() == v1::ResourceType::Archive;
    // How it is unpacked is a part of what becomes of it.
    let kind = is_archive.then(|| archive_kind(resource));
    let kind = kind.map_or_else(String::new, |kind| format!("{:?}", kind.ok()));
    let base = cache_key(resource, asker);
    if !resource.sha256.is_empty() {
        return CacheKey {
            source: format!("by digest {kind}"),
            size: 0,
            mtime_ms: 0,
            ..base
        };
    }
    let key = CacheKey {
        scope: scope_of(resource, asker),
        source: format!("{} of {} {kind}", resource.source, file.endpoint),
        only_for: String::new(),
        ..base
    };
    match said.and_then(Said::validator) {
        Some(validator) => CacheKey { validator, ..key },
        None => for_one(key, asker),
    }
}

/// The source's name tells the kind; the link may be called anything, or may tell it instead.
pub(super) fn archive_kind(resource: &v1::LocalResource) -> Result<ArchiveKind, ArchiveError> {
    ArchiveKind::of(&source_name(resource))
        .or_else(|e| ArchiveKind::of(&resource.name).map_err(|_| e))
}

/// The last part of a source's path.
pub(super) fn source_name(resource: &v1::LocalResource) -> String {
    match Source::parse(&resource.source) {
        Ok(Source::Remote(place)) => place.file_name().to_owned(),
        Ok(Source::Staged(_) | Source::WebHdfs(_) | Source::File(_)) | Err(_) => {
            let source = &resource.source;
            source.rsplit('/').next().unwrap_or("").to_owned()
        }
    }
}
