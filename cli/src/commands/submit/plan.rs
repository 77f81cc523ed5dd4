//! What a submission is, worked out and checked from the flags and this host's files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bobbin_proto::v1;
use bobbin_types::{
    ARGUMENT_BYTES_MAX, ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX, ENVIRONMENT_BYTES_MAX, ENVIRONMENT_MAX,
    LOCAL_RESOURCES_MAX, SETTINGS_MAX, TAGS_MAX,
};

use super::{sources, text_files};
use crate::args::{DeployMode, Master, SubmitArgs};
use crate::failure::{Failure, Kind, io_words};
use crate::parse;

/// Memory of the application master beside the driver, in the same container. Source: the measured
/// size of `bobbin-appmaster` with room for its executors' connections.
pub(crate) const OVERHEAD_MEMORY_MIB: u64 = 64;
/// What agents unpack. Source: `LocalResource.type` in common.proto.
const ARCHIVE_ENDINGS: [&str; 7] = [
    ".zip", ".jar", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst",
];

/// A file of this host that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) path: PathBuf,
    /// Its name in the driver's working folder.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime_ms: u64,
    pub(crate) kind: v1::ResourceType,
}

/// A checked submission.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// The driver's program and arguments; an uploaded program is `./NAME`.
    pub(crate) argv: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) uploads: Vec<Upload>,
    /// `file:` sources, which each node has itself, and URLs, which it fetches.
    pub(crate) of_nodes: Vec<v1::LocalResource>,
    /// The text of `--object-store`; empty for none.
    pub(crate) stores: Vec<u8>,
    pub(crate) tags: Vec<String>,
}

impl Plan {
    /// # Errors
    /// The first thing that is wrong, named; nothing has been sent.
    pub(crate) fn new(args: &SubmitArgs) -> Result<Plan, Failure> {
        check_sizes(args)?;
        let mut environment = text_files::environment(&args.env_file)?;
        environment.extend(args.env.iter().cloned());
        check_environment(&environment)?;
        let settings = settings(args)?;
        let mut resources = Resources::default();
        for text in args.files.iter().filter(|t| !t.is_empty()) {
            resources.add("--files", text, v1::ResourceType::File)?;
        }
        for text in args.archives.iter().filter(|t| !t.is_empty()) {
            resources.add("--archives", text, v1::ResourceType::Archive)?;
        }
        let argv = if runs_in_cluster(args) {
            argv_in_cluster(&args.program, &mut resources)?
        } else {
            check_program_here(&args.program[0])?;
            args.program.clone()
        };
        if resources.names.len() > LOCAL_RESOURCES_MAX {
            return Err(Failure::usage(format!(
                "{} files and archives are too many: at most {LOCAL_RESOURCES_MAX} are allowed",
                resources.names.len()
            ))
            .try_this("pack them into one archive: --archives files.tgz"));
        }
        Ok(Plan {
            name: args
                .name
                .clone()
                .unwrap_or_else(|| default_name(&args.program[0])),
            argv,
            environment,
            settings,
            uploads: resources.uploads,
            of_nodes: resources.of_nodes,
            stores: match &args.object_store {
                Some(path) => text_files::object_store(path)?,
                None => Vec::new(),
            },
            tags: args
                .tags
                .iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .cloned()
                .collect(),
        })
    }

    pub(crate) fn has_resources(&self) -> bool {
        !self.uploads.is_empty() || !self.of_nodes.is_empty()
    }

    /// Bytes that travel before the submission.
    pub(crate) fn upload_bytes(&self) -> u64 {
        self.uploads.iter().map(|u| u.size).sum()
    }
}

fn runs_in_cluster(args: &SubmitArgs) -> bool {
    args.master == Master::Cluster && args.deploy_mode == DeployMode::Cluster
}

/// The program's last component, so that lists stay readable.
fn default_name(program: &str) -> String {
    let name = program
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(program);
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    if name.is_empty() {
        "driver".to_owned()
    } else {
        name
    }
}

fn check_sizes(args: &SubmitArgs) -> Result<(), Failure> {
    let program = &args.program;
    if program[0].is_empty() {
        return Err(
            Failure::usage("the program's name is empty").try_this("`bobbin submit --help`")
        );
    }
    // The master's own words come in front.
    let words_max = ARGUMENTS_MAX - 8;
    if program.len() > words_max {
        return Err(too_long(&format!(
            "the argument list has {} words, at most {words_max} are allowed",
            program.len()
        )));
    }
    let bytes: usize = program.iter().map(|a| a.len() + 1).sum();
    let bytes_max = ARGUMENTS_BYTES_MAX - 1024;
    if bytes > bytes_max {
        return Err(too_long(&format!(
            "the argument list has {bytes} bytes, at most {bytes_max} are allowed"
        )));
    }
    if let Some(n) = program.iter().position(|a| a.len() >= ARGUMENT_BYTES_MAX) {
        return Err(too_long(&format!(
            "argument {n} has {} bytes, less than {ARGUMENT_BYTES_MAX} are allowed",
            program[n].len()
        )));
    }
    if args.tags.len() > TAGS_MAX {
        return Err(Failure::usage(format!(
            "{} tags are too many: at most {TAGS_MAX} are allowed",
            args.tags.len()
        )));
    }
    Ok(())
}

fn too_long(words: &str) -> Failure {
    Failure::usage(words).try_this("put the words into a file and ship it: --files words.txt")
}

fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), Failure> {
    if environment.len() > ENVIRONMENT_MAX {
        return Err(Failure::usage(format!(
            "--env and --env-file name {} variables, at most {ENVIRONMENT_MAX} are allowed",
            environment.len()
        )));
    }
    let bytes: usize = environment.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        return Err(Failure::usage(format!(
            "the environment has {bytes} bytes, at most {ENVIRONMENT_BYTES_MAX} are allowed"
        ))
        .try_this("ship large values in a file: --files"));
    }
    Ok(())
}

/// Settings that have flags: one place to say them.
const HAVE_FLAGS: [(&str, &str); 3] = [
    ("num-executors", "--num-executors"),
    ("executor-memory-mib", "--executor-memory"),
    ("executor-cores", "--executor-cores"),
];

fn settings(args: &SubmitArgs) -> Result<BTreeMap<String, String>, Failure> {
    let mut settings = BTreeMap::new();
    let of_file = match &args.properties_file {
        Some(path) => text_files::properties(path)?,
        None => Vec::new(),
    };
    for (key, value) in of_file.iter().chain(&args.conf) {
        if let Some((_, flag)) = HAVE_FLAGS.iter().find(|(name, _)| name == key) {
            return Err(
                Failure::usage(format!("the setting '{key}' has a flag of its own"))
                    .try_this(format!("{flag} {value}")),
            );
        }
        settings.insert(key.clone(), value.clone());
    }
    if settings.len() > SETTINGS_MAX {
        return Err(Failure::usage(format!(
            "--conf and --properties-file have {} settings, at most {SETTINGS_MAX} are allowed",
            settings.len()
        )));
    }
    settings.insert("num-executors".to_owned(), args.num_executors.to_string());
    settings.insert(
        "executor-memory-mib".to_owned(),
        args.executor_memory.to_string(),
    );
    settings.insert("executor-cores".to_owned(), args.executor_cores.to_string());
    Ok(settings)
}

/// Whether a program travels: a relative path with a slash does, the others are the node's own.
fn travels(program: &str) -> bool {
    program.contains('/') && !program.starts_with('/')
}

fn argv_in_cluster(program: &[String], resources: &mut Resources) -> Result<Vec<String>, Failure> {
    if !travels(&program[0]) {
        return Ok(program.to_vec());
    }
    let path = Path::new(&program[0]);
    check_executable(path)?;
    let name = file_name(path)?;
    // The same file may have been named by --files already.
    let shipped = resources
        .uploads
        .iter()
        .any(|u| u.name == name && same_file(&u.path, path));
    if !shipped {
        resources.add_upload("the program", path, name.clone(), v1::ResourceType::File)?;
    }
    let mut argv = vec![format!("./{name}")];
    argv.extend_from_slice(&program[1..]);
    Ok(argv)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        (Ok(_) | Err(_), _) => false,
    }
}

/// A program that runs here is looked for as the shell would, so that the answer comes before an
/// application exists.
fn check_program_here(program: &str) -> Result<(), Failure> {
    if program.contains('/') {
        return check_executable(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = None;
    for folder in std::env::split_paths(&path) {
        let candidate = folder.join(program);
        match check_executable(&candidate) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.kind == Kind::NotExecutable => found = Some(failure),
            Err(_) => {}
        }
    }
    Err(found.unwrap_or_else(|| {
        not_found(program).try_this("write a path (./driver), or add its folder to PATH")
    }))
}

fn not_found(program: &str) -> Failure {
    Failure::new(
        Kind::ProgramNotFound,
        format!("the program '{}' was not found", parse::shown(program)),
    )
}

fn check_executable(path: &Path) -> Result<(), Failure> {
    let shown = parse::shown(&path.display().to_string());
    let not_executable = |why: &str| {
        Failure::new(
            Kind::NotExecutable,
            format!("the program '{shown}' cannot be executed: {why}"),
        )
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(not_executable("permission denied"));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(not_found(&shown).try_this("look at its path"));
        }
        Err(_) => return Err(not_found(&shown).try_this("look at its path")),
    };
    if metadata.is_dir() {
        return Err(not_executable("it is a folder"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(
            not_executable("it is not marked executable").try_this(format!("chmod +x {shown}"))
        );
    }
    Ok(())
}

fn file_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    parse::file_name(name).map_err(|_| {
        Failure::usage(format!(
            "'{}' has no file name that can travel",
            parse::shown(&path.display().to_string())
        ))
    })
}

/// Whether agents can unpack what is called so.
pub(super) fn is_archive_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ARCHIVE_ENDINGS.iter().any(|end| lower.ends_with(end))
}

pub(super) fn no_archive(flag: &str, source: &str) -> Failure {
    Failure::usage(format!(
        "{flag}: '{}' is no archive that can be unpacked",
        parse::shown(source)
    ))
    .try_this(format!("one that ends with {}", ARCHIVE_ENDINGS.join(" ")))
}

/// Files and archives as they are collected.
#[derive(Debug, Default)]
struct Resources {
    uploads: Vec<Upload>,
    of_nodes: Vec<v1::LocalResource>,
    names: BTreeSet<String>,
}

impl Resources {
    /// `PATH`, `PATH#NAME`, `file:/PATH` of the nodes, or a URL that they fetch.
    fn add(&mut self, flag: &str, text: &str, kind: v1::ResourceType) -> Result<(), Failure> {
        if sources::is_url(text) {
            let resource = sources::resource(flag, text, kind)?;
            self.take_name(flag, &resource.name)?;
            self.of_nodes.push(resource);
            return Ok(());
        }
        let (source, alias) = match text.rsplit_once('#') {
            Some((source, alias)) => (source, Some(alias)),
            None => (text, None),
        };
        let (on_node, path) = match source.strip_prefix("file:") {
            Some(path) => (true, normal_file_url(flag, path)?),
            None => (false, PathBuf::from(source)),
        };
        let name = match alias {
            Some(alias) => {
                parse::file_name(alias).map_err(|e| Failure::usage(format!("{flag}: {e}")))?
            }
            None => file_name(&path)?,
        };
        let is_archive = is_archive_name(&path.display().to_string());
        if kind == v1::ResourceType::Archive && !is_archive {
            return Err(no_archive(flag, source));
        }
        if on_node {
            return self.add_of_nodes(flag, &path, name, kind);
        }
        self.add_upload(flag, &path, name, kind)
    }

    fn take_name(&mut self, flag: &str, name: &str) -> Result<(), Failure> {
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(
            Failure::usage(format!("{flag}: '{name}' would be there twice"))
                .try_this(format!("give one of them another name: PATH#OTHER-{name}")),
        )
    }

    fn add_upload(
        &mut self,
        flag: &str,
        path: &Path,
        name: String,
        kind: v1::ResourceType,
    ) -> Result<(), Failure> {
        let shown = parse::shown(&path.display().to_string());
        let unreadable = |e: &std::io::Error| {
            Failure::usage(format!("{flag}: '{shown}' cannot be read: {}", io_words(e)))
                .try_this("look at its path and permissions")
        };
        let metadata = std::fs::metadata(path).map_err(|e| unreadable(&e))?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() {
                "a folder"
            } else {
                "not a file"
            };
            return Err(
                Failure::usage(format!("{flag}: '{shown}' is {what}")).try_this(
                    "pack it and ship the archive: tar -czf it.tgz ... and --archives it.tgz",
                ),
            );
        }
        // Opened only after it is known to be a file: a pipe would block.
        std::fs::File::open(path).map_err(|e| unreadable(&e))?;
        self.take_name(flag, &name)?;
        self.uploads.push(Upload {
            path: path.to_owned(),
            name,
            size: metadata.len(),
            mode: metadata.permissions().mode() & 0o777,
            mtime_ms: mtime_ms(&metadata),
            kind,
        });
        Ok(())
    }

    fn add_of_nodes(
        &mut self,
        flag: &str,
        path: &Path,
        name: String,
        kind: v1::ResourceType,
    ) -> Result<(), Failure> {
        // Size and time are what agents check the file against, so it must be here as well: a shared
        // file system, or the same image on every node.
        let metadata = std::fs::metadata(path).map_err(|e| {
            Failure::usage(format!(
                "{flag}: 'file:{}': {}",
                path.display(),
                io_words(&e)
            ))
            .try_this("a file: source must be the same here and on every node")
        })?;
        self.take_name(flag, &name)?;
        self.of_nodes.push(v1::LocalResource {
            name,
            source: format!("file:{}", path.display()),
            size: metadata.len(),
            mtime_ms: mtime_ms(&metadata),
            sha256: Vec::new(),
            r#type: kind.into(),
            visibility: v1::Visibility::Private.into(),
            executable: metadata.permissions().mode() & 0o111 != 0,
        });
        Ok(())
    }
}

/// The absolute path of `file:/path` and `file:///path`.
fn normal_file_url(flag: &str, rest: &str) -> Result<PathBuf, Failure> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.starts_with('/') && !path.chars().any(char::is_control) {
        return Ok(PathBuf::from(path));
    }
    Err(Failure::usage(format!(
        "{flag}: 'file:{}' is not absolute",
        parse::shown(rest)
    ))
    .try_this("file:/absolute/path of the nodes, or a path without file: to ship it"))
}

/// Unix milliseconds; times before 1970 count as 0.
fn mtime_ms(metadata: &std::fs::Metadata) -> u64 {
    let s = u64::try_from(metadata.mtime()).unwrap_or(0);
    let ns = u64::try_from(metadata.mtime_nsec()).unwrap_or(0);
    s.saturating_mul(1000).saturating_add(ns / 1_000_000)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(words: &[&str]) -> Result<Plan, Failure> {
        let line = ["bobbin", "submit"].iter().chain(words);
        let Command::Submit(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!("submit was typed")
        };
        Plan::new(&args)
    }

    fn file(folder: &Path, name: &str, mode: u32) -> String {
        let path = folder.join(name);
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    /// A path with a slash that is relative, as seen from wherever the tests run.
    fn relative(path: &str) -> String {
        let up = std::env::current_dir().unwrap().components().count() - 1;
        format!("{}{}", "../".repeat(up), path.trim_start_matches('/'))
    }

    const CLUSTER: [&str; 2] = ["--deploy-mode", "cluster"];

    #[test]
    fn bare_names_and_absolute_paths_are_the_nodes_own() {
        for program in ["true", "/no/such/program"] {
            let plan = plan(&[&CLUSTER[..], &["--", program, "x"]].concat()).unwrap();
            assert_eq!(plan.argv, [program, "x"]);
            assert!(!plan.has_resources());
        }
    }

    #[test]
    fn relative_programs_travel() {
        let folder = tempfile::tempdir().unwrap();
        let program = relative(&file(folder.path(), "driver", 0o755));
        let plan = plan(&[&CLUSTER[..], &["--", &program, "x"]].concat()).unwrap();
        assert_eq!(plan.argv, ["./driver", "x"]);
        assert_eq!(plan.uploads.len(), 1);
        assert_eq!((plan.uploads[0].mode, plan.uploads[0].size), (0o755, 1));
        assert_eq!(plan.name, "driver");
    }

    #[test]
    fn programs_that_cannot_run() {
        let folder = tempfile::tempdir().unwrap();
        let plain = relative(&file(folder.path(), "plain", 0o644));
        let dir = relative(&folder.path().display().to_string());
        let missing = format!("{dir}/missing");
        for mode in ["cluster", "client"] {
            for (program, kind) in [
                (&plain, Kind::NotExecutable),
                (&dir, Kind::NotExecutable),
                (&missing, Kind::ProgramNotFound),
            ] {
                let failure = plan(&["--deploy-mode", mode, "--", program]).unwrap_err();
                assert_eq!(failure.kind, kind, "{mode} {program}: {failure}");
            }
        }
        let failure = plan(&["--", "no-such-program-anywhere"]).unwrap_err();
        assert_eq!(failure.kind, Kind::ProgramNotFound);
        assert!(
            failure.message.contains("no-such-program-anywhere"),
            "{failure}"
        );
    }

    #[test]
    fn files_and_archives() {
        let folder = tempfile::tempdir().unwrap();
        let data = file(folder.path(), "data.txt", 0o644);
        let archive = file(folder.path(), "lib.tgz", 0o644);
        let files = format!("{data},{data}#other.txt,file:{data}#third");
        let plan_of = |files: &str, archives: &str| {
            let flags = ["--files", files, "--archives", archives, "--", "true"];
            plan(&[&CLUSTER[..], &flags].concat())
        };
        let good = plan_of(&files, &archive).unwrap();
        let names: Vec<_> = good.uploads.iter().map(|u| u.name.as_str()).collect();
        assert_eq!(names, ["data.txt", "other.txt", "lib.tgz"]);
        assert_eq!(good.of_nodes[0].name, "third");
        assert_eq!(good.of_nodes[0].source, format!("file:{data}"));
        assert!(good.of_nodes[0].mtime_ms > 1_600_000_000_000);
        for (files, archives, word) in [
            (format!("{data},{data}"), archive.clone(), "twice"),
            ("/no/such/file".to_owned(), archive.clone(), "/no/such/file"),
            (
                folder.path().display().to_string(),
                archive.clone(),
                "folder",
            ),
            (format!("{data}#a/b"), archive.clone(), "a/b"),
            ("file:relative".to_owned(), archive, "absolute"),
            (data.clone(), format!("{data}#x.tgz"), "archive"),
        ] {
            let failure = plan_of(&files, &archives).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage, "{failure}");
            assert!(failure.message.contains(word), "{word}: {failure}");
        }
    }

    #[test]
    fn limits_are_named() {
        let long = "x".repeat(ARGUMENT_BYTES_MAX);
        let failure = plan(&["--", "true", &long]).unwrap_err();
        assert!(
            failure.message.contains(&ARGUMENT_BYTES_MAX.to_string()),
            "{failure}"
        );
        let many = vec!["x"; ARGUMENTS_MAX];
        let failure = plan(&[&["--", "true"][..], &many].concat()).unwrap_err();
        assert!(failure.message.contains("words"), "{failure}");
        let chunk = "x".repeat(100 << 10);
        let chunks = vec![chunk.as_str(); 12];
        let failure = plan(&[&["--", "true"][..], &chunks].concat()).unwrap_err();
        assert!(failure.message.contains("bytes"), "{failure}");
        let failure = plan(&["--tags", "a,b,c,d,e,f,g,h,i,j,k", "--", "true"]).unwrap_err();
        assert!(failure.message.contains("tags"), "{failure}");
    }

    #[test]
    fn settings_of_flags_and_of_conf() {
        let settings = plan(&[
            "--num-executors",
            "3",
            "--executor-memory",
            "2g",
            "--conf",
            "task.max-failures=2",
            "--",
            "true",
        ])
        .unwrap()
        .settings;
        let pairs: Vec<_> = settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("executor-cores", "1"),
                ("executor-memory-mib", "2048"),
                ("num-executors", "3"),
                ("task.max-failures", "2")
            ]
        );
        let failure = plan(&["--conf", "num-executors=3", "--", "true"]).unwrap_err();
        assert!(failure.cure.unwrap().contains("--num-executors 3"));
    }

    #[test]
    fn names_come_from_the_program() {
        assert_eq!(default_name("/usr/bin/python3"), "python3");
        assert_eq!(default_name("a\u{7}b"), "ab");
        assert_eq!(default_name("/"), "driver");
    }
}
