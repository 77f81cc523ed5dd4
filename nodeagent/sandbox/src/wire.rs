//! The messages between agent, server and monitor, in a small binary encoding of their own.
//!
//! Integers are little endian; texts and lists carry their length before them.
//! The decoder checks every length against what is there and refuses what is left over.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::cgroup::{CgroupLease, MemoryEvents};
use crate::error::LaunchError;
use crate::spec::{Bind, ContainerSpec, CpuMode, Limits, OutputFiles, Profile};

/// What the server reads from its control socket: a launch, its stream is attached.
pub(crate) const LAUNCH_MESSAGE: [u8; 4] = *b"BBL1";
/// Bytes of an encoded specification: arguments, environment and binds at their limits, twice over.
pub(crate) const SPEC_BYTES_MAX: usize = 4 << 20;
/// Bytes of an answer, which travels in one piece.
pub(crate) const ANSWER_BYTES_MAX: usize = 4096;
/// Bytes of a text inside an answer; longer ones are cut.
const ANSWER_TEXT_BYTES_MAX: usize = 1024;

/// What a monitor tells the agent.
#[derive(Debug)]
pub(crate) enum Answer {
    Started {
        monitor_pid: i32,
        monitor_start_ticks: u64,
    },
    Failed(LaunchError),
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn length(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }
    fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend_from_slice(value);
    }
    fn path(&mut self, value: &Path) {
        self.bytes(value.as_os_str().as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?
            .try_into()
            .map_err(|_| Malformed("it ends early"))
    }
    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }
    fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed("a length is too large"))?)
    }
    fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed("a text is not UTF-8"))
    }
    fn path(&mut self) -> Result<PathBuf, Malformed> {
        Ok(std::ffi::OsString::from_vec(self.bytes()?.to_vec()).into())
    }
    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }
    /// A list; `least` is the smallest size of an element, so that a false count cannot reserve
    /// more memory than the message itself has.
    fn list<T>(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed("a count is too large"))?;
        if count > self.0.len() / least {
            return Err(Malformed("a list is longer than the message"));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
    fn option<T>(
        &mut self,
        item: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? {
            item(self).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The specification behind its length, as it travels on the stream.
///
/// # Errors
/// When it is larger than the kernel would take anyway.
pub(crate) fn encode_spec(spec: &ContainerSpec) -> Result<Vec<u8>, LaunchError> {
    let mut out = Writer(Vec::with_capacity(2048));
    out.u32(0);
    out.bytes(spec.container_id.as_bytes());
    out.length(spec.argv.len());
    for word in &spec.argv {
        out.bytes(word.as_bytes());
    }
    out.length(spec.environment.len());
    for (name, value) in &spec.environment {
        out.bytes(name.as_bytes());
        out.bytes(value.as_bytes());
    }
    out.u32(spec.uid);
    out.u32(spec.gid);
    out.length(spec.groups.len());
    for group in &spec.groups {
        out.u32(*group);
    }
    out.bytes(spec.user_name.as_bytes());
    out.bytes(spec.host_name.as_bytes());
    out.path(&spec.work_dir);
    out.length(spec.binds.len());
    for bind in &spec.binds {
        out.path(&bind.source);
        out.path(&bind.target);
        out.u8(u8::from(bind.writable));
    }
    out.path(&spec.log_dir);
    out.u8(match spec.output_files {
        OutputFiles::Standard => 0,
        OutputFiles::Prelaunch => 1,
    });
    out.u64(spec.log_bytes_max);
    out.path(&spec.private_dir);
    out.path(&spec.run_dir);
    encode_limits(&mut out, spec);
    encode_lease(&mut out, spec.cgroups.as_ref());
    let length = out.0.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= SPEC_BYTES_MAX => {
            out.0[..4].copy_from_slice(&prefix.to_le_bytes());
            Ok(out.0)
        }
        _ => Err(LaunchError::BadSpec {
            field: "argv and environment",
            reason: format!("{length} bytes in all, at most {SPEC_BYTES_MAX} are possible"),
        }),
    }
}

fn encode_limits(out: &mut Writer, spec: &ContainerSpec) {
    out.u64(spec.memory_mib);
    out.u32(spec.vcores);
    out.u8(match spec.cpu {
        CpuMode::Share => 0,
        CpuMode::HardCap => 1,
    });
    out.u32(spec.pids_max);
    out.u64(spec.limits.open_files);
    out.u64(spec.limits.user_processes);
    out.u64(spec.limits.tmp_mib);
    out.u32(spec.limits.oom_score_adj);
    out.u32(spec.kill_grace_ms);
    out.u8(match spec.profile {
        Profile::Full => 0,
        Profile::Rootless => 1,
        Profile::Plain => 2,
    });
}

fn encode_lease(out: &mut Writer, lease: Option<&CgroupLease>) {
    out.u8(u8::from(lease.is_some()));
    let Some(lease) = lease else { return };
    out.u32(lease.slot);
    out.bytes(lease.name.as_bytes());
    out.length(lease.groups.len());
    for group in &lease.groups {
        out.path(group);
    }
    out.u8(u8::from(lease.into_v2.is_some()));
    if let Some(group) = &lease.into_v2 {
        out.path(group);
    }
    out.u8(u8::from(lease.memory.is_some()));
    if let Some((group, events)) = &lease.memory {
        out.path(group);
        out.u8(match events {
            MemoryEvents::V1 => 1,
            MemoryEvents::V2 => 2,
        });
    }
    out.u64(lease.cpu_base_usec);
}

/// Reads what `encode_spec` wrote, without the length before it.
pub(crate) fn decode_spec(bytes: &[u8]) -> Result<ContainerSpec, Malformed> {
    let mut from = Reader(bytes);
    let spec = ContainerSpec {
        container_id: from.text()?,
        argv: from.list(4, Reader::text)?,
        environment: from.list(8, |from| Ok((from.text()?, from.text()?)))?,
        uid: from.u32()?,
        gid: from.u32()?,
        groups: from.list(4, Reader::u32)?,
        user_name: from.text()?,
        host_name: from.text()?,
        work_dir: from.path()?,
        binds: from.list(9, |from| {
            Ok(Bind {
                source: from.path()?,
                target: from.path()?,
                writable: from.flag()?,
            })
        })?,
        log_dir: from.path()?,
        output_files: if from.flag()? {
            OutputFiles::Prelaunch
        } else {
            OutputFiles::Standard
        },
        log_bytes_max: from.u64()?,
        private_dir: from.path()?,
        run_dir: from.path()?,
        memory_mib: from.u64()?,
        vcores: from.u32()?,
        cpu: if from.flag()? {
            CpuMode::HardCap
        } else {
            CpuMode::Share
        },
        pids_max: from.u32()?,
        limits: Limits {
            open_files: from.u64()?,
            user_processes: from.u64()?,
            tmp_mib: from.u64()?,
            oom_score_adj: from.u32()?,
        },
        kill_grace_ms: from.u32()?,
        profile: match from.u8()? {
            0 => Profile::Full,
            1 => Profile::Rootless,
            2 => Profile::Plain,
            _ => return Err(Malformed("the profile is unknown")),
        },
        cgroups: from.option(decode_lease)?,
    };
    if from.0.is_empty() {
        Ok(spec)
    } else {
        Err(Malformed("bytes are left over"))
    }
}

fn decode_lease(from: &mut Reader<'_>) -> Result<CgroupLease, Malformed> {
    Ok(CgroupLease {
        slot: from.u32()?,
        name: from.text()?,
        groups: from.list(4, Reader::path)?,
        into_v2: from.option(Reader::path)?,
        memory: from.option(|from| {
            let group = from.path()?;
            match from.u8()? {
                1 => Ok((group, MemoryEvents::V1)),
                2 => Ok((group, MemoryEvents::V2)),
                _ => Err(Malformed("an unknown cgroup version")),
            }
        })?,
        cpu_base_usec: from.u64()?,
    })
}

/// The answer's bytes, at most `ANSWER_BYTES_MAX`.
pub(crate) fn encode_answer(answer: &Answer) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(64));
    let error = match answer {
        Answer::Started {
            monitor_pid,
            monitor_start_ticks,
        } => {
            out.u8(0);
            out.i32(*monitor_pid);
            out.u64(*monitor_start_ticks);
            return out.0;
        }
        Answer::Failed(error) => error,
    };
    match error {
        LaunchError::NotFound { program } => {
            out.u8(1);
            out.bytes(cut(program));
        }
        LaunchError::NotExecutable { program, source } => {
            out.u8(2);
            out.bytes(cut(program));
            out.i32(source.raw_os_error().unwrap_or(0));
        }
        LaunchError::BadSpec { field, reason } => {
            out.u8(3);
            out.bytes(cut(&format!("{field}: {reason}")));
        }
        LaunchError::Setup { step, source } => {
            out.u8(4);
            out.bytes(cut(step));
            out.i32(source.raw_os_error().unwrap_or(0));
        }
        LaunchError::StartLauncher { .. }
        | LaunchError::LauncherGone
        | LaunchError::Control { .. }
        | LaunchError::BadAnswer { .. } => {
            out.u8(4);
            out.bytes(cut(&error.to_string()));
            out.i32(0);
        }
    }
    out.0
}

fn cut(text: &str) -> &[u8] {
    let mut end = text.len().min(ANSWER_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

/// Reads what `encode_answer` wrote.
pub(crate) fn decode_answer(bytes: &[u8]) -> Result<Answer, LaunchError> {
    let mut from = Reader(bytes);
    let answer = decode_answer_body(&mut from)
        .map_err(|Malformed(reason)| LaunchError::BadAnswer { reason })?;
    if from.0.is_empty() {
        Ok(answer)
    } else {
        Err(LaunchError::BadAnswer {
            reason: "bytes are left over",
        })
    }
}

fn decode_answer_body(from: &mut Reader<'_>) -> Result<Answer, Malformed> {
    Ok(match from.u8()? {
        0 => Answer::Started {
            monitor_pid: from.i32()?,
            monitor_start_ticks: from.u64()?,
        },
        1 => Answer::Failed(LaunchError::NotFound {
            program: from.text()?,
        }),
        2 => Answer::Failed(LaunchError::NotExecutable {
            program: from.text()?,
            source: io::Error::from_raw_os_error(from.i32()?),
        }),
        3 => Answer::Failed(LaunchError::BadSpec {
            field: "refused",
            reason: from.text()?,
        }),
        4 => Answer::Failed(LaunchError::Setup {
            step: from.text()?,
            source: io::Error::from_raw_os_error(from.i32()?),
        }),
        _ => return Err(Malformed("an unknown kind of answer")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            container_id: "container_e01_1_0001_01_000001".into(),
            argv: vec!["sh".into(), "-c".into(), "echo é".into()],
            environment: vec![("A".into(), "1".into()), ("B".into(), String::new())],
            uid: 1000,
            gid: 1001,
            groups: vec![7, 8],
            user_name: "nobody".into(),
            host_name: String::new(),
            work_dir: "/w".into(),
            binds: vec![Bind {
                source: "/s".into(),
                target: "/t".into(),
                writable: true,
            }],
            log_dir: "/l".into(),
            output_files: OutputFiles::Prelaunch,
            log_bytes_max: 1 << 30,
            private_dir: "/p".into(),
            run_dir: "/r".into(),
            memory_mib: 128,
            vcores: 2,
            cpu: CpuMode::HardCap,
            pids_max: 100,
            limits: Limits::default(),
            kill_grace_ms: 250,
            profile: Profile::Full,
            cgroups: Some(CgroupLease {
                slot: 4,
                name: "c".into(),
                groups: vec!["/sys/fs/cgroup/memory/x".into()],
                into_v2: None,
                memory: Some(("/sys/fs/cgroup/memory/x".into(), MemoryEvents::V1)),
                cpu_base_usec: 5,
            }),
        }
    }

    #[test]
    fn a_specification_comes_back() {
        let mut spec = spec();
        for _ in 0..2 {
            let bytes = encode_spec(&spec).unwrap();
            assert_eq!(decode_spec(&bytes[4..]).unwrap(), spec);
            spec.cgroups = None;
            spec.profile = Profile::Rootless;
        }
    }

    #[test]
    fn every_cut_and_every_tail_is_refused() {
        let bytes = encode_spec(&spec()).unwrap()[4..].to_vec();
        for cut in 0..bytes.len() {
            assert!(decode_spec(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(decode_spec(&longer), Err(Malformed("bytes are left over")));
    }

    #[test]
    fn a_huge_argument_list_is_refused_with_words() {
        let mut spec = spec();
        spec.argv.push("x".repeat(SPEC_BYTES_MAX));
        assert!(matches!(
            encode_spec(&spec),
            Err(LaunchError::BadSpec { .. })
        ));
    }

    #[test]
    fn answers_come_back() {
        let started = Answer::Started {
            monitor_pid: 7,
            monitor_start_ticks: 9,
        };
        assert!(matches!(
            decode_answer(&encode_answer(&started)),
            Ok(Answer::Started {
                monitor_pid: 7,
                monitor_start_ticks: 9
            })
        ));
        let failed = Answer::Failed(LaunchError::NotExecutable {
            program: "é".repeat(5000),
            source: io::Error::from_raw_os_error(13),
        });
        let bytes = encode_answer(&failed);
        assert!(bytes.len() <= ANSWER_BYTES_MAX);
        let Ok(Answer::Failed(error)) = decode_answer(&bytes) else {
            panic!("not an error")
        };
        assert_eq!(error.exit_status(), Some(126));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode_spec(&bytes);
            let _ = decode_answer(&bytes);
        }

        #[test]
        fn a_flipped_byte_does_not_make_it_panic(at in 0_usize..300, to in any::<u8>()) {
            let mut bytes = encode_spec(&spec()).unwrap()[4..].to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = decode_spec(&bytes);
        }
    }
}
