//! The default filter: what a program in a container may not ask of the kernel.
//!
//! A list of refused calls, decided by a binary search instead of a chain of comparisons: the
//! kernel runs every installed filter once for each call number to fill its cache of verdicts, so a
//! chain of a hundred comparisons would be walked some five hundred times on every launch.
//! Calls newer than the list are refused as unknown, so that nothing new is open by accident.
//! Refusals are errors, not kills: a library that probes for a call falls back.

use libc::sock_filter;

/// Errors for refused calls.
const EPERM: u32 = 1;
const EAFNOSUPPORT: u32 = 97;
const ENOSYS: u32 = 38;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

// Classic BPF. Source: linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENT_0: u32 = 16;
const OFFSET_ARGUMENT_1: u32 = 24;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The first call number this list has not been read for (Linux 6.18); higher ones are unknown.
const FIRST_UNKNOWN: u32 = 470;

/// Every flag of clone(2) that makes a namespace. (The time namespace has none there: its bit is
/// part of the exit signal.)
const NAMESPACE_FLAGS: u32 = 0x0002_0000 // mount
    | 0x0200_0000 // cgroup
    | 0x0400_0000 // uts
    | 0x0800_0000 // ipc
    | 0x1000_0000 // user
    | 0x2000_0000 // pid
    | 0x4000_0000; // network

/// Types input into the caller's terminal as if the user had. Source: ioctl_tty(2).
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// Families of sockets that programs need. The others reach the hypervisor (vsock) or load and run
/// rarely used kernel code for anybody (crypto, bluetooth, TIPC and many more).
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(u32),
    /// clone: refused if argument 0 asks for a namespace.
    NoNamespace,
    /// ioctl: refused if argument 1 is one of the terminal injections.
    NoInjection,
    /// socket: refused unless argument 0 is a family of every day.
    CommonFamilies,
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// Calls that no program of a container needs, or that reach out of it.
const REFUSED: &[libc::c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Kernel surfaces with a long record of holes.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other processes' memory.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The host's clock, kernel, swap, quota, accounting, log.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    // Files by handle go past every mount.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Placement of memory is the host's.
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Every call that is not simply allowed.
fn rules() -> Vec<(u32, Verdict)> {
    let mut rules: Vec<(u32, Verdict)> = REFUSED
        .iter()
        .map(|call| (number(*call), Verdict::Refuse(EPERM)))
        .collect();
    // Libraries take ENOSYS as "an older kernel" and use the older call, which can be looked into.
    let absent = [
        libc::SYS_clone3,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    rules.extend(
        absent
            .into_iter()
            .map(|call| (number(call), Verdict::Refuse(ENOSYS))),
    );
    rules.push((number(libc::SYS_clone), Verdict::NoNamespace));
    rules.push((number(libc::SYS_ioctl), Verdict::NoInjection));
    rules.push((number(libc::SYS_socket), Verdict::CommonFamilies));
    // quotactl_fd, mount listings (statmount, listmount), open_tree_attr.
    for call in [443, 457, 458, 467] {
        rules.push((call, Verdict::Refuse(EPERM)));
    }
    rules.sort_unstable_by_key(|(call, _)| *call);
    rules.dedup_by_key(|(call, _)| *call);
    rules
}

/// A stretch of call numbers with one verdict, from `first` to the next range's first.
struct Range {
    first: u32,
    verdict: Verdict,
}

fn ranges() -> Vec<Range> {
    let mut ranges = vec![Range {
        first: 0,
        verdict: Verdict::Allow,
    }];
    for (call, verdict) in rules() {
        // Neighbors with the same verdict share a range.
        let last = ranges.len() - 1;
        let (last_first, last_verdict) = (ranges[last].first, ranges[last].verdict);
        if last_verdict == Verdict::Allow && last_first == call {
            ranges[last].verdict = verdict;
        } else if last_first != call || last_verdict != verdict {
            ranges.push(Range {
                first: call,
                verdict,
            });
        }
        ranges.push(Range {
            first: call + 1,
            verdict: Verdict::Allow,
        });
    }
    ranges.push(Range {
        first: FIRST_UNKNOWN,
        verdict: Verdict::Refuse(ENOSYS),
    });
    merge(ranges)
}

fn merge(ranges: Vec<Range>) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if let Some(last) = merged.last_mut() {
            if last.first == range.first {
                last.verdict = range.verdict;
                continue;
            }
            if last.verdict == range.verdict {
                continue;
            }
        }
        merged.push(range);
    }
    merged
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u16, k: u32, jt: usize, jf: usize) -> sock_filter {
    let near = |distance: usize| {
        u8::try_from(distance).expect("the filter's halves are shorter than a jump's reach")
    };
    sock_filter {
        code,
        jt: near(jt),
        jf: near(jf),
        k,
    }
}

/// The filter, ready to be installed. It depends on nothing but the architecture.
pub(crate) fn filter() -> Vec<sock_filter> {
    let mut program = vec![
        statement(LOAD_WORD, OFFSET_ARCHITECTURE),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        statement(RETURN, RET_KILL_PROCESS),
        statement(LOAD_WORD, OFFSET_NUMBER),
    ];
    program.extend(search(&ranges()));
    program
}

/// Code that finds the range of the loaded call number and returns its verdict.
fn search(ranges: &[Range]) -> Vec<sock_filter> {
    if let [only] = ranges {
        return verdict(only.verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let low_code = search(low);
    let high_code = search(high);
    // The lower half comes second, so its length does not bound the jump; when the higher half is
    // too long for a jump of 8 bits, it is reached over an unconditional return to itself: not
    // needed for the length of our list, which `jump` asserts.
    let mut code = vec![jump(
        JUMP_GREATER_OR_EQUAL,
        high[0].first,
        0,
        high_code.len(),
    )];
    code.extend(high_code);
    code.extend(low_code);
    code
}

fn verdict(verdict: Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Allow => vec![statement(RETURN, RET_ALLOW)],
        Verdict::Refuse(errno) => vec![statement(RETURN, RET_ERRNO | errno)],
        Verdict::NoNamespace => vec![
            statement(LOAD_WORD, OFFSET_ARGUMENT_0),
            jump(JUMP_ANY_BIT, NAMESPACE_FLAGS, 0, 1),
            statement(RETURN, RET_ERRNO | EPERM),
            statement(RETURN, RET_ALLOW),
        ],
        Verdict::NoInjection => vec![
            statement(LOAD_WORD, OFFSET_ARGUMENT_1),
            jump(JUMP_EQUAL, TIOCSTI, 1, 0),
            jump(JUMP_EQUAL, TIOCLINUX, 0, 1),
            statement(RETURN, RET_ERRNO | EPERM),
            statement(RETURN, RET_ALLOW),
        ],
        Verdict::CommonFamilies => {
            let mut code = vec![statement(LOAD_WORD, OFFSET_ARGUMENT_0)];
            for (index, family) in FAMILIES.iter().enumerate() {
                let to_allow = FAMILIES.len() - index;
                code.push(jump(JUMP_EQUAL, family.unsigned_abs(), to_allow, 0));
            }
            code.push(statement(RETURN, RET_ERRNO | EAFNOSUPPORT));
            code.push(statement(RETURN, RET_ALLOW));
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do: the part of classic BPF that the filter uses.
    fn run(program: &[sock_filter], architecture: u32, call: u32, arguments: [u32; 2]) -> u32 {
        let mut at = 0;
        let mut word = 0_u32;
        loop {
            let step = &program[at];
            at += 1;
            let branch = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                LOAD_WORD => {
                    word = match step.k {
                        OFFSET_NUMBER => call,
                        OFFSET_ARCHITECTURE => architecture,
                        OFFSET_ARGUMENT_0 => arguments[0],
                        OFFSET_ARGUMENT_1 => arguments[1],
                        other => panic!("load of {other}"),
                    };
                }
                JUMP_EQUAL => at += branch(word == step.k),
                JUMP_GREATER_OR_EQUAL => at += branch(word >= step.k),
                JUMP_ANY_BIT => at += branch(word & step.k != 0),
                RETURN => return step.k,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn every_call_gets_its_verdict() {
        let program = filter();
        let rules = rules();
        for call in 0..FIRST_UNKNOWN {
            let got = run(&program, ARCHITECTURE, call, [0, 0]);
            let rule = rules
                .iter()
                .find(|(rule, _)| *rule == call)
                .map(|(_, verdict)| *verdict);
            let wanted = match rule {
                None | Some(Verdict::Allow | Verdict::NoNamespace | Verdict::NoInjection) => {
                    RET_ALLOW
                }
                Some(Verdict::Refuse(errno)) => RET_ERRNO | errno,
                // Family 0 is none.
                Some(Verdict::CommonFamilies) => RET_ERRNO | EAFNOSUPPORT,
            };
            assert_eq!(got, wanted, "call {call}");
        }
    }

    #[test]
    fn the_unknown_the_foreign_and_the_x32_calls_are_refused() {
        let program = filter();
        for call in [FIRST_UNKNOWN, 600, 0x4000_0000, 0x4000_0000 + 165, u32::MAX] {
            assert_eq!(
                run(&program, ARCHITECTURE, call, [0, 0]),
                RET_ERRNO | ENOSYS
            );
        }
        // i386 has its own numbers: none of them may be looked up in this list.
        assert_eq!(run(&program, 0x4000_0003, 1, [0, 0]), RET_KILL_PROCESS);
    }

    #[test]
    fn clone_makes_threads_and_children_but_no_namespaces() {
        let program = filter();
        let clone = number(libc::SYS_clone);
        let thread = 0x003d_0f00;
        assert_eq!(run(&program, ARCHITECTURE, clone, [thread, 0]), RET_ALLOW);
        for bit in 0..32 {
            let flag = 1_u32 << bit;
            let wanted = if flag & NAMESPACE_FLAGS != 0 {
                RET_ERRNO | EPERM
            } else {
                RET_ALLOW
            };
            assert_eq!(
                run(&program, ARCHITECTURE, clone, [flag, 0]),
                wanted,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn ioctl_does_not_type_for_others() {
        let program = filter();
        let ioctl = number(libc::SYS_ioctl);
        assert_eq!(
            run(&program, ARCHITECTURE, ioctl, [0, TIOCSTI]),
            RET_ERRNO | EPERM
        );
        assert_eq!(
            run(&program, ARCHITECTURE, ioctl, [0, TIOCLINUX]),
            RET_ERRNO | EPERM
        );
        assert_eq!(run(&program, ARCHITECTURE, ioctl, [0, 0x5401]), RET_ALLOW);
    }

    #[test]
    fn sockets_are_of_every_days_families() {
        let program = filter();
        let socket = number(libc::SYS_socket);
        for family in 0..64 {
            let wanted = if [1, 2, 10, 16].contains(&family) {
                RET_ALLOW
            } else {
                RET_ERRNO | EAFNOSUPPORT
            };
            let got = run(&program, ARCHITECTURE, socket, [family, 1]);
            assert_eq!(got, wanted, "family {family}");
        }
        // Not by its low bits.
        let got = run(&program, ARCHITECTURE, socket, [0x1_0001, 1]);
        assert_eq!(got, RET_ERRNO | EAFNOSUPPORT);
    }

    #[test]
    fn a_verdict_takes_few_steps() {
        // A chain of comparisons would take a hundred and more; the whole list is searched in 16.
        let program = filter();
        assert!(program.len() < 400, "{} instructions", program.len());
    }
}
