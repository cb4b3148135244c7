//! When what failed is tried again: a cron pattern in a time zone, or a span laid end to end from 1970 on, so that
//! all processes and all rows have the same runs.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Local, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::row::Millis;
use crate::config::{Span, nearest};
use crate::error::{Error, Kind, Result};

/// Runs of one pattern that fall into one moment, or that are left out: an hour of seconds, and more for zones whose
/// clocks move further.
const SKIPPED: usize = 100_000;

/// See the module.
#[derive(Debug, Clone)]
pub(super) enum Schedule {
    Every(Duration),
    Cron(Box<Cron>, Zone),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Zone {
    Named(Tz),
    Local,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Every(Duration::from_secs(120))
    }
}

impl Schedule {
    /// Reads a span, or a pattern of six fields, seconds first; five fields run at second 0.
    pub(super) fn parse(text: &str, zone: Option<&str>) -> Result<Schedule> {
        let wrong = |text: String| Error::new(Kind::InvalidConfig, text);
        if let Ok(span) = Span::parse(text) {
            if zone.is_some() {
                return Err(wrong("`time_zone` is for a pattern, and the `schedule` is a span".into()));
            }
            if span.0 < Duration::from_millis(1) {
                return Err(wrong("`schedule`: a span is at least 1ms".into()));
            }
            return Ok(Schedule::Every(span.0));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|error| {
            wrong(format!(
                "`schedule` is a span such as 120s, or a cron pattern with seconds such as `0 */10 * * * *`: {error}"
            ))
        })?;
        let zone = match zone {
            None => Zone::Named(Tz::UTC),
            Some("local") => Zone::Local,
            Some(name) => Zone::Named(Tz::from_str(name).map_err(|_| unknown_zone(name))?),
        };
        let schedule = Schedule::Cron(Box::new(cron), zone);
        // From a day in the past, so that a pattern is judged the same at all times.
        if schedule.after(1_700_000_000_000).is_none() {
            return Err(wrong("`schedule`: the pattern never comes true".into()));
        }
        Ok(schedule)
    }

    /// The first run after `now`; none where there is none any more.
    pub(super) fn after(&self, now: Millis) -> Option<Millis> {
        match self {
            Schedule::Every(span) => {
                let span = Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX).max(1);
                now.div_euclid(span).checked_add(1)?.checked_mul(span)
            }
            Schedule::Cron(cron, Zone::Named(zone)) => next(cron, zone, now),
            Schedule::Cron(cron, Zone::Local) => next(cron, &Local, now),
        }
    }
}

fn next<Z: TimeZone>(cron: &Cron, zone: &Z, now: Millis) -> Option<Millis>
where
    DateTime<Z>: croner::CronDateTime,
{
    let now: DateTime<Utc> = DateTime::from_timestamp_millis(now)?;
    let found = match cron.pattern.hours.values().len() {
        // What runs in every hour goes on evenly, whatever the hours are called.
        24 => cron.find_next_occurrence(&now.with_timezone(zone), false).ok()?.to_utc(),
        _ => next_of_day(cron, zone, now)?,
    };
    // One that is not later would be run again and again.
    Some(found.timestamp_millis()).filter(|found| *found > now.timestamp_millis())
}

// Times of day: each comes once a day. One that is left out comes right after the gap, one that comes twice the first
// time.
fn next_of_day<Z: TimeZone>(cron: &Cron, zone: &Z, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut time = now.with_timezone(zone).naive_local();
    for _ in 0..SKIPPED {
        time = cron.find_next_occurrence(&time, false).ok()?;
        let moment = moment(zone, time)?;
        if moment > now {
            return Some(moment);
        }
    }
    None
}

fn moment<Z: TimeZone>(zone: &Z, time: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&time) {
        LocalResult::Single(only) => Some(only.to_utc()),
        LocalResult::Ambiguous(one, other) => Some(one.to_utc().min(other.to_utc())),
        LocalResult::None => end_of_gap(zone, time),
    }
}

// The first moment after a gap with this time in it; the widest was a whole day.
fn end_of_gap<Z: TimeZone>(zone: &Z, time: NaiveDateTime) -> Option<DateTime<Utc>> {
    let before = (1..=16).find_map(|step| {
        zone.from_local_datetime(&time.checked_sub_signed(TimeDelta::hours(3 * step))?).latest()
    })?;
    let offset = before.offset().fix();
    let mut early = before.to_utc().timestamp();
    let mut late = offset.from_local_datetime(&time).single()?.to_utc().timestamp();
    let same = |at: i64| {
        let at = DateTime::from_timestamp(at, 0)?;
        Some(zone.offset_from_utc_datetime(&at.naive_utc()).fix() == offset)
    };
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        match same(middle)? {
            true => early = middle,
            false => late = middle,
        }
    }
    DateTime::from_timestamp(late, 0)
}

fn unknown_zone(name: &str) -> Error {
    let known: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
    let hint = nearest(name, &known).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default();
    Error::new(Kind::InvalidConfig, format!("`time_zone`: no time zone is called `{name}`{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(pattern, Some(zone)).unwrap();
        let mut now = DateTime::parse_from_rfc3339(from).unwrap().timestamp_millis();
        let mut runs = Vec::new();
        for _ in 0..count {
            now = schedule.after(now).unwrap();
            runs.push(DateTime::from_timestamp_millis(now).unwrap().format("%dT%H:%M:%S").to_string());
        }
        runs
    }

    #[test]
    fn a_pattern_has_seconds_and_a_zone() {
        assert_eq!(
            runs("0 */10 * * * *", "UTC", "2026-01-01T00:00:00Z", 3),
            ["01T00:10:00", "01T00:20:00", "01T00:30:00"]
        );
        assert_eq!(
            runs("15,45 * * * * *", "UTC", "2026-01-01T00:00:15.001Z", 2),
            ["01T00:00:45", "01T00:01:15"]
        );
        assert_eq!(
            runs("0 0 9 * * *", "Asia/Shanghai", "2026-01-01T00:00:00Z", 2),
            ["01T01:00:00", "02T01:00:00"]
        );
        assert_eq!(runs("30 4 * * *", "UTC", "2026-01-01T00:00:00Z", 1), ["01T04:30:00"], "five fields");
        // Weekday 1 is Monday, the 5th.
        assert_eq!(runs("0 0 12 * * 1", "UTC", "2026-01-01T00:00:00Z", 1), ["05T12:00:00"]);
    }

    #[test]
    fn a_time_of_day_that_is_left_out_runs_once_right_after_it() {
        // On 29 March 2026 Berlin goes from 01:59:59 UTC+1 to 03:00 UTC+2, at 01:00 UTC.
        assert_eq!(
            runs("0 30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
            ["28T01:30:00", "29T01:00:00", "30T00:30:00"]
        );
    }

    #[test]
    fn a_time_of_day_that_comes_twice_runs_once() {
        // On 25 October 2026 Berlin goes from 02:59:59 UTC+2 to 02:00 UTC+1, at 01:00 UTC.
        assert_eq!(
            runs("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["25T00:30:00", "26T01:30:00"]
        );
    }

    #[test]
    fn what_runs_every_few_minutes_goes_on_evenly() {
        for from in ["2026-03-28T23:55:00Z", "2026-10-24T23:55:00Z"] {
            let schedule = Schedule::parse("0 */10 * * * *", Some("Europe/Berlin")).unwrap();
            let mut now = DateTime::parse_from_rfc3339(from).unwrap().timestamp_millis() + 300_000;
            assert_eq!(schedule.after(now - 600_000), Some(now));
            for _ in 0..60 {
                let next = schedule.after(now).unwrap();
                assert_eq!(next - now, 600_000, "{from}: after {now}");
                now = next;
            }
        }
    }

    #[test]
    fn of_several_times_of_day_each_comes_once_a_day() {
        assert_eq!(
            runs("0 0 2,14 * * *", "Europe/Berlin", "2026-03-28T00:30:00Z", 5),
            ["28T01:00:00", "28T13:00:00", "29T01:00:00", "29T12:00:00", "30T00:00:00"]
        );
        assert_eq!(
            runs("0 0 2,14 * * *", "Europe/Berlin", "2026-10-24T12:30:00Z", 3),
            ["25T00:00:00", "25T13:00:00", "26T01:00:00"]
        );
        assert_eq!(
            runs("0 0,30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
            ["25T00:00:00", "25T00:30:00", "26T01:00:00"]
        );
        // Both fall into the gap: that is one run.
        assert_eq!(
            runs("0 0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3),
            ["29T01:00:00", "30T00:00:00", "30T00:30:00"]
        );
        assert_eq!(
            runs("0 0 */2 * * *", "Europe/Berlin", "2026-10-24T21:00:00Z", 4),
            ["24T22:00:00", "25T00:00:00", "25T03:00:00", "25T05:00:00"]
        );
        // Between the two halves: the first was the run.
        assert_eq!(runs("* * 2 * * *", "Europe/Berlin", "2026-10-25T01:00:00Z", 1), ["26T01:00:00"]);
        // Apia had no 30 December 2011: from UTC-10 to UTC+14 at 10:00 UTC.
        assert_eq!(
            runs("0 0 9,12 * * *", "Pacific/Apia", "2011-12-29T18:30:00Z", 5),
            ["29T19:00:00", "29T22:00:00", "30T10:00:00", "30T19:00:00", "30T22:00:00"]
        );
    }

    #[test]
    fn the_zone_of_the_machine_is_one_too() {
        let schedule = Schedule::parse("0 30 9,21 * * *", Some("local")).unwrap();
        let mut now = 1_774_000_000_000;
        for _ in 0..800 {
            now = schedule.after(now).unwrap();
            let time = DateTime::from_timestamp_millis(now).unwrap().with_timezone(&Local).time();
            assert!(["09:30:00", "21:30:00"].contains(&&*time.to_string()), "{time}");
        }
    }

    #[test]
    fn zones_whose_clocks_move_by_half_an_hour_and_at_midnight() {
        // Lord Howe: on 5 April 2026 from 01:59:59 UTC+11 back to 01:30 UTC+10:30, at 15:00 UTC on the 4th.
        assert_eq!(
            runs("0 45 1 * * *", "Australia/Lord_Howe", "2026-04-03T16:00:00Z", 2),
            ["04T14:45:00", "05T15:15:00"]
        );
        // Santiago: midnight of 6 September 2026 is left out, at 04:00 UTC.
        assert_eq!(
            runs("0 0 0 * * *", "America/Santiago", "2026-09-05T00:00:00Z", 3),
            ["05T04:00:00", "06T04:00:00", "07T03:00:00"]
        );
    }

    #[test]
    fn a_year_of_changes_has_as_many_runs_as_it_has_days_and_hours() {
        for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"] {
            let tz = Tz::from_str(zone).unwrap();
            let start = tz.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap().timestamp_millis();
            let end = tz.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap().timestamp_millis();
            for (pattern, a_day) in [
                ("0 30 2 * * *", 1),
                ("0 15 1 * * *", 1),
                ("0 0 0 * * *", 1),
                ("0 0 1,2,3 * * *", 3),
                ("0 5 0,6,12,18 * * *", 4),
                ("0 0 * * * *", 24),
                ("0 */30 * * * *", 48),
            ] {
                let schedule = Schedule::parse(pattern, Some(zone)).unwrap();
                let (mut now, mut count, mut widest) = (start - 1, 0, 0);
                while now < end {
                    let next = schedule.after(now).unwrap();
                    assert!(next > now);
                    widest = widest.max(next - now);
                    (now, count) = (next, count + i64::from(next < end));
                }
                // Where clocks move by half an hour, one full hour a year has no name.
                let unnamed = i64::from(zone == "Australia/Lord_Howe" && a_day == 24);
                // The run of an hour that is left out is that of the next.
                let merged =
                    i64::from(a_day == 3 && zone != "America/Santiago" && zone != "Australia/Lord_Howe");
                assert_eq!(count, 365 * a_day - unnamed - merged, "{zone} {pattern}");
                let hours = if a_day == 1 { 25 } else { 24 };
                assert!(widest <= hours * 3_600_000, "{zone} {pattern}: {widest}");
            }
        }
    }

    #[test]
    fn spans_are_laid_end_to_end() {
        let schedule = Schedule::default();
        assert_eq!(schedule.after(0), Some(120_000));
        assert_eq!(schedule.after(119_999), Some(120_000));
        assert_eq!(schedule.after(120_000), Some(240_000));
        assert_eq!(schedule.after(Millis::MAX - 1), None);
    }
}
