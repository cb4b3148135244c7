//! When what failed is tried again: a cron pattern in a time zone, or a span laid end to end from 1970 on, so that
//! all processes and all rows have the same runs.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Local, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::row::Millis;
use crate::config::{Span, nearest};
use crate::error::{Error, Kind, Result};

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
    let found = cron.find_next_occurrence(&now.with_timezone(zone), false).ok()?;
    // One that is not later would be run again and again.
    Some(found.timestamp_millis()).filter(|found| *found > now.timestamp_millis())
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
            let mut now = DateTime::parse_from_rfc3339(from).unwrap().timestamp_millis() + 300_000 - 600_000;
            for _ in 0..40 {
                let next = schedule.after(now + 1).unwrap();
                let next = if next == now { schedule.after(now).unwrap() } else { next };
                assert!(next - now <= 600_000, "{from}: a gap of {} s after {now}", (next - now) / 1000);
                now = next;
            }
            let hours = (0..5).map(|hour| now + hour * 3_600_000);
            assert!(hours.clone().all(|hour| schedule.after(hour).unwrap() - hour == 600_000));
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
    fn runs_never_stand_still_over_a_year_of_changes() {
        for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"] {
            for pattern in ["0 30 2 * * *", "0 15 1 * * *", "0 0 * * * *", "0 0 0 * * *"] {
                let schedule = Schedule::parse(pattern, Some(zone)).unwrap();
                let daily = pattern != "0 0 * * * *";
                let start = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().timestamp_millis();
                let (mut now, mut count) = (start, 0);
                while now < start + 365 * 86_400_000 {
                    let next = schedule.after(now).unwrap();
                    assert!(next > now);
                    assert!(!daily || next - now <= 26 * 3_600_000, "{zone} {pattern}");
                    (now, count) = (next, count + 1);
                }
                let expected = if daily { 365..=366 } else { 8758..=8761 };
                assert!(expected.contains(&count), "{zone} {pattern}: {count}");
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
