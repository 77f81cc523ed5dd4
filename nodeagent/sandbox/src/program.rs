//! The program's own process: born without a copy of memory, it sets its last few things and
//! executes.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::base::Failed;
use crate::spec::ContainerSpec;

/// Stack of the program's process until it executes the program.
const STACK_BYTES: usize = 64 << 10;

/// Everything between birth and execution is prepared here, because nothing may be allocated then.
pub(crate) struct Program {
    /// Places to look for the program, in order.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
    work_dir: CString,
    /// Descriptors that become 0, 1 and 2.
    stdio: [i32; 3],
}

/// Why the program is not executed.
#[derive(Debug)]
pub(crate) enum NotExecuted {
    NotFound,
    NotExecutable {
        errno: i32,
    },
    /// The work folder cannot be entered as the user.
    NoWorkDir {
        errno: i32,
    },
    /// There could be no process for it.
    NoProcess(io::Error),
}

/// What the process sees of `Program`: pointers, and places for its failure.
struct Child<'a> {
    program: &'a Program,
    argv: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    no_signals: libc::sigset_t,
    errno: AtomicI32,
    /// Whether it was the work folder.
    no_work_dir: AtomicI32,
}

impl Program {
    /// # Errors
    /// When a text holds a NUL byte.
    pub(crate) fn new(spec: &ContainerSpec, stdio: [i32; 3]) -> Result<Program, Failed> {
        let environment = spec
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        Ok(Program {
            candidates: candidates(spec)?,
            argv: c_strings(spec.argv.iter().cloned())?,
            environment: c_strings(environment)?,
            work_dir: CString::new(spec.work_dir.as_os_str().as_bytes()).unwrap_or_default(),
            stdio,
        })
    }

    fn child(&self) -> Child<'_> {
        let pointers = |strings: &[CString]| {
            strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        Child {
            program: self,
            argv: pointers(&self.argv),
            environment: pointers(&self.environment),
            no_signals: *SigSet::empty().as_ref(),
            errno: AtomicI32::new(0),
            no_work_dir: AtomicI32::new(0),
        }
    }

    /// Starts the process on this memory; returns when it has executed.
    pub(crate) fn start(&self) -> Result<Pid, NotExecuted> {
        let child = self.child();
        let mut stack = vec![0_u8; STACK_BYTES];
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = stack.as_mut_ptr_range().end;
        // SAFETY: the stack outlives the child's use of it, since CLONE_VFORK holds this process
        // until the child has executed or ended; its top is aligned to 16 bytes by the subtraction.
        // `execute` only makes system calls on memory that `child` keeps alive.
        let pid = unsafe {
            let top = top.sub(top.addr() % 16);
            libc::clone(
                execute,
                top.cast(),
                flags,
                ptr::from_ref(&child).cast_mut().cast(),
            )
        };
        if pid < 0 {
            return Err(NotExecuted::NoProcess(io::Error::last_os_error()));
        }
        match child.errno.load(Ordering::Relaxed) {
            0 => Ok(Pid::from_raw(pid)),
            errno if child.no_work_dir.load(Ordering::Relaxed) != 0 => {
                Err(NotExecuted::NoWorkDir { errno })
            }
            errno => Err(self.why_not(errno)),
        }
    }

    /// Executes in this very process, which ends with 127 if that fails.
    pub(crate) fn execute_here(&self) -> ! {
        let child = self.child();
        execute(ptr::from_ref(&child).cast_mut().cast());
        crate::sys::leave(127)
    }

    /// Tells "not there" from "there, but its interpreter is not".
    fn why_not(&self, errno: i32) -> NotExecuted {
        let there = self.candidates.iter().any(|candidate| {
            // SAFETY: the path is NUL-terminated.
            unsafe { libc::access(candidate.as_ptr(), libc::F_OK) == 0 }
        });
        if errno == libc::ENOENT && !there {
            NotExecuted::NotFound
        } else {
            NotExecuted::NotExecutable { errno }
        }
    }
}

fn c_strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, Failed> {
    texts
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|_| Failed {
            step: "arguments and environment hold a NUL byte".to_owned(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
        })
}

/// Where the program may be: its path, or its name in each folder of the environment's PATH.
fn candidates(spec: &ContainerSpec) -> Result<Vec<CString>, Failed> {
    let program = spec.argv.first().cloned().unwrap_or_default();
    if program.contains('/') {
        return c_strings([program].into_iter());
    }
    let path = spec
        .environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH");
    let path = path.map_or("/usr/local/bin:/usr/bin:/bin", |(_, value)| value.as_str());
    c_strings(path.split(':').map(|folder| {
        if folder.is_empty() {
            format!("./{program}")
        } else {
            format!("{folder}/{program}")
        }
    }))
}

/// Runs in the program's process. Only system calls; no allocation, no unwinding.
extern "C" fn execute(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the callers pass a valid `Child` that outlives this function; every pointer in it is
    // NUL-terminated or a NULL-terminated array.
    unsafe {
        let child = &*argument.cast::<Child<'_>>();
        let program = child.program;
        libc::setsid();
        libc::dup2(program.stdio[0], 0);
        libc::dup2(program.stdio[1], 1);
        libc::dup2(program.stdio[2], 2);
        // Everything else is close-on-exec already; this holds even if one was forgotten.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 4_u32);
        libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const child.no_signals,
            ptr::null_mut(),
        );
        if libc::chdir(program.work_dir.as_ptr()) != 0 {
            child
                .errno
                .store(*libc::__errno_location(), Ordering::Relaxed);
            child.no_work_dir.store(1, Ordering::Relaxed);
            libc::_exit(127);
        }
        let mut worst = libc::ENOENT;
        for candidate in &program.candidates {
            libc::execve(
                candidate.as_ptr(),
                child.argv.as_ptr(),
                child.environment.as_ptr(),
            );
            let errno = *libc::__errno_location();
            match errno {
                libc::ENOENT | libc::ENOTDIR => {}
                // One that may not be executed here may be found further on, as in a shell.
                libc::EACCES => worst = errno,
                _ => {
                    worst = errno;
                    break;
                }
            }
        }
        child.errno.store(worst, Ordering::Relaxed);
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_bare_name_is_looked_up_in_the_environments_path() {
        let mut spec = crate::plan::tests::spec_in(Path::new("/var/b"));
        spec.environment = vec![("PATH".into(), "/a::/b".into())];
        let found = candidates(&spec).unwrap();
        assert_eq!(
            found,
            [
                c"/a/true".to_owned(),
                c"./true".to_owned(),
                c"/b/true".to_owned()
            ]
        );
        spec.argv = vec!["./x".into()];
        assert_eq!(candidates(&spec).unwrap(), [c"./x".to_owned()]);
    }
}
