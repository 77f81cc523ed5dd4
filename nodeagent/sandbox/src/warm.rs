//! Page tables of a spare, filled while nobody waits.
//!
//! A forked process meets a fault for every page of text that it runs first and every page of data
//! that it writes first; a quarter of a monitor's time went there. The server notes its own mappings
//! once, and each spare asks for them in a few calls before it waits for a launch.

use std::fs;

/// One mapping of the program, the C library or the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    start: usize,
    bytes: usize,
    writable: bool,
}

/// Largest mapping that is worth it; above it is address space, not memory in use.
const BYTES_MAX: usize = 4 << 20;

/// The mappings of this process.
pub(crate) fn mappings() -> Vec<Mapping> {
    parse(&fs::read_to_string("/proc/self/maps").unwrap_or_default())
}

fn parse(maps: &str) -> Vec<Mapping> {
    maps.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let rights = fields.next()?;
            let name = fields.nth(3).unwrap_or_default();
            let start = usize::from_str_radix(start, 16).ok()?;
            let bytes = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
            // The kernel's own, and the stack, most of which is never used.
            let kernel = name.starts_with("[v") || name == "[stack]";
            (rights.starts_with('r') && !kernel && bytes <= BYTES_MAX).then_some(Mapping {
                start,
                bytes,
                writable: rights.as_bytes().get(1) == Some(&b'w'),
            })
        })
        .collect()
}

/// Fills this process's page tables for `mappings`, which must be a parent's or its own.
pub(crate) fn warm(mappings: &[Mapping]) {
    for mapping in mappings {
        let advice = if mapping.writable {
            libc::MADV_POPULATE_WRITE
        } else {
            libc::MADV_POPULATE_READ
        };
        // SAFETY: populating changes no content and no right; a range that is not mapped (any more)
        // is refused. An older kernel refuses the advice, which only costs time later.
        unsafe { libc::madvise(mapping.start as *mut libc::c_void, mapping.bytes, advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_and_can_be_filled() {
        let maps = "\
55d0c0000000-55d0c0001000 r--p 00000000 fe:00 123 /usr/bin/x y
55d0c0002000-55d0c0004000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0
7f0000000000-7fff00000000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(
            parse(maps),
            [
                Mapping {
                    start: 0x55d0_c000_0000,
                    bytes: 0x1000,
                    writable: false
                },
                Mapping {
                    start: 0x55d0_c000_2000,
                    bytes: 0x2000,
                    writable: true
                },
            ]
        );
        let own = mappings();
        assert!(own.iter().any(|mapping| mapping.writable));
        warm(&own);
    }
}
