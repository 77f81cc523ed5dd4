//! Moments as YARN's log pages write them.
//!
//! Source: `Times.format`, `EEE MMM dd HH:mm:ss Z yyyy`; here always in UTC.

const DAY_MS: u64 = 86_400_000;
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// Year 10,000.
const END_MS: u64 = 253_402_300_800_000;

/// `Sun Nov 22 20:06:24 +0000 2026` of Unix milliseconds.
pub(super) fn written(ms: u64) -> String {
    let ms = ms.min(END_MS - 1);
    let (days, of_day) = (ms / DAY_MS, ms % DAY_MS / 1_000);
    let mut year = 1970;
    let mut left = days;
    while left >= year_days(year) {
        left -= year_days(year);
        year += 1;
    }
    let february = if year_days(year) == 366 { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = "";
    for (name, length) in MONTHS.iter().zip(lengths) {
        month = name;
        if left < length {
            break;
        }
        left -= length;
    }
    let weekday = DAYS
        .iter()
        .cycle()
        .nth(usize::try_from(days % 7).unwrap_or(0))
        .unwrap_or(&"");
    format!(
        "{weekday} {month} {:02} {:02}:{:02}:{:02} +0000 {year}",
        left + 1,
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

fn year_days(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (ms, text) in [
            (0, "Thu Jan 01 00:00:00 +0000 1970"),
            (951_827_696_000, "Tue Feb 29 12:34:56 +0000 2000"),
            (1_795_377_984_999, "Sun Nov 22 20:06:24 +0000 2026"),
            (4_107_542_399_000, "Sun Feb 28 23:59:59 +0000 2100"),
            (u64::MAX, "Fri Dec 31 23:59:59 +0000 9999"),
        ] {
            assert_eq!(written(ms), text);
        }
    }
}
