//! Moments as YARN's clients write them: `2026-11-22T20:10:02.123+0000`.
//!
//! Source: `org.apache.hadoop.yarn.util.Times`, `ISO8601_DATE_FORMAT`.

use bobbin_types::WallMillis;

const DAY_MS: u64 = 86_400_000;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH_DAYS: u64 = 719_468;
/// Minutes of an offset, at most.
const OFFSET_MINUTES_MAX: i64 = 18 * 60;

/// A text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no moment such as 2026-11-22T20:10:02.123+0000, from 1970 on")]
pub(crate) struct TimeError(String);

/// The moment, in UTC.
pub(crate) fn format(wall: WallMillis) -> String {
    let (days, ms) = (wall.0 / DAY_MS, wall.0 % DAY_MS);
    let (year, month, day) = date(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, milli) = (ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}+0000")
}

/// Reads one; the offset is `Z`, `+hhmm` or `+hh:mm`.
pub(crate) fn parse(text: &str) -> Result<WallMillis, TimeError> {
    read(text).ok_or_else(|| {
        let shown = text.chars().filter(|c| !c.is_control()).take(64);
        TimeError(shown.collect())
    })
}

fn read(text: &str) -> Option<WallMillis> {
    // Digits alone are counted below: `parse` would also take signs.
    let (date, time) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let (year, month, day) = (
        number(parts.next()?, 4)?,
        number(parts.next()?, 2)?,
        number(parts.next()?, 2)?,
    );
    let time = time.strip_prefix('T')?;
    let (clock, offset) = time.split_at_checked(12)?;
    let (clock, milli) = clock.split_once('.')?;
    let mut parts = clock.split(':');
    let (hour, minute, second) = (
        number(parts.next()?, 2)?,
        number(parts.next()?, 2)?,
        number(parts.next()?, 2)?,
    );
    let milli = number(milli, 3)?;
    let good = parts.next().is_none()
        && year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !good {
        return None;
    }
    let ms = days(year, month, day) * DAY_MS
        + hour * 3_600_000
        + minute * 60_000
        + second * 1000
        + milli;
    let utc = i64::try_from(ms).ok()? - offset_minutes(offset)? * 60_000;
    Some(WallMillis(u64::try_from(utc).ok()?))
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let all_digits = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| text.parse().ok())?
}

fn offset_minutes(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits = rest.replacen(':', "", 1);
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = i64::try_from(number(hours, 2)? * 60 + number(minutes, 2)?).ok()?;
    (minutes <= OFFSET_MINUTES_MAX).then_some(sign * minutes)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1 January 1970. Years begin in March here, so that the leap day is the last.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH_DAYS
}

/// Year, month and day so many days after 1 January 1970; the inverse of [`days`].
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000+0000"),
            (951_782_400_000, "2000-02-29T00:00:00.000+0000"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123+0000"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999+0000"),
        ] {
            assert_eq!(format(WallMillis(ms)), text);
            assert_eq!(parse(text), Ok(WallMillis(ms)));
        }
        for same in [
            "2023-11-14T23:13:20.123+0100",
            "2023-11-14T17:13:20.123-05:00",
            "2023-11-14T22:13:20.123Z",
        ] {
            assert_eq!(parse(same), Ok(WallMillis(1_700_000_000_123)), "{same}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "2023-11-14",
            "2023-11-14T22:13:20+0000",
            "2023-02-29T00:00:00.000Z",
            "2023-13-01T00:00:00.000Z",
            "2023-11-14T24:00:00.000Z",
            "2023-11-14T00:00:00.000",
            "2023-11-14T00:00:00.000+9900",
            "1969-12-31T23:59:59.999Z",
            "1970-01-01T00:00:00.000+0100",
            "2023-11-14T+1:00:00.000Z",
            "é023-11-14T00:00:00.000Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(ms in 0..253_402_300_800_000_u64) {
            prop_assert_eq!(parse(&format(WallMillis(ms))), Ok(WallMillis(ms)));
        }

        #[test]
        fn any_text_is_safe(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
