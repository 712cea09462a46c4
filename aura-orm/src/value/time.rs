//! Values of the crate time, which are sent and read as those of chrono.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, Timelike};
use sea_orm::Value;
use sea_orm::sea_query::prelude::time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// Returns chrono's value for one of time's. `None` for any other, and for a year that
/// chrono can't hold.
pub(crate) fn to_chrono(value: &Value) -> Option<Value> {
    Some(match *value {
        Value::TimeDate(date) => Value::ChronoDate(converted(date, to_date)?),
        Value::TimeTime(time) => Value::ChronoTime(converted(time, to_time)?),
        Value::TimeDateTime(time) => Value::ChronoDateTime(converted(time, |time| {
            Some(to_date(time.date())?.and_time(to_time(time.time())?))
        })?),
        Value::TimeDateTimeWithTimeZone(time) => {
            Value::ChronoDateTimeWithTimeZone(converted(time, |time| {
                let utc = DateTime::from_timestamp(time.unix_timestamp(), time.nanosecond())?;
                let offset = FixedOffset::east_opt(time.offset().whole_seconds())?;
                Some(utc.with_timezone(&offset))
            })?)
        }
        _ => return None,
    })
}

/// Returns time's value for one of chrono's. `None` for any other, and for a year that time
/// can't hold.
pub(crate) fn from_chrono(value: &Value) -> Option<Value> {
    Some(match *value {
        Value::ChronoDate(date) => Value::TimeDate(converted(date, from_date)?),
        Value::ChronoTime(time) => Value::TimeTime(converted(time, from_time)?),
        Value::ChronoDateTime(time) => Value::TimeDateTime(converted(time, |time| {
            let (date, time) = (from_date(time.date())?, from_time(time.time())?);
            Some(PrimitiveDateTime::new(date, time))
        })?),
        Value::ChronoDateTimeWithTimeZone(time) => {
            Value::TimeDateTimeWithTimeZone(converted(time, |time| {
                let nanos = i128::from(time.timestamp()) * 1_000_000_000;
                let nanos = nanos + i128::from(time.timestamp_subsec_nanos());
                let utc = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
                let offset = UtcOffset::from_whole_seconds(time.offset().local_minus_utc());
                utc.checked_to_offset(offset.ok()?)
            })?)
        }
        _ => return None,
    })
}

/// Converts what isn't NULL. The outer `None` is a failure.
#[expect(clippy::option_option, reason = "NULL, and no value")]
fn converted<T, U>(value: Option<T>, convert: impl Fn(T) -> Option<U>) -> Option<Option<U>> {
    value.map_or(Some(None), |value| convert(value).map(Some))
}

fn to_date(date: Date) -> Option<NaiveDate> {
    NaiveDate::from_yo_opt(date.year(), date.ordinal().into())
}

fn to_time(time: Time) -> Option<NaiveTime> {
    let (hour, minute, second, nanos) = time.as_hms_nano();
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanos)
}

fn from_date(date: NaiveDate) -> Option<Date> {
    let ordinal = u16::try_from(date.ordinal()).ok()?;
    Date::from_ordinal_date(date.year(), ordinal).ok()
}

fn from_time(time: NaiveTime) -> Option<Time> {
    let part = |part: u32| u8::try_from(part).ok();
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    Time::from_hms_nano(part(hour)?, part(minute)?, part(second)?, time.nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        for text in [
            "1969-07-20T20:17:40.123456789-05:30",
            "0001-01-01T00:00:00+00:00",
            "9999-12-31T23:59:59.999999999+00:00",
        ] {
            let time: DateTime<FixedOffset> = text.parse().expect("a time");
            let values = [
                Value::ChronoDate(Some(time.date_naive())),
                Value::ChronoTime(Some(time.time())),
                Value::ChronoDateTime(Some(time.naive_local())),
                Value::ChronoDateTimeWithTimeZone(Some(time)),
                Value::ChronoDate(None),
            ];
            for value in values {
                let converted = from_chrono(&value).expect("a value");
                assert_ne!(converted, value);
                assert_eq!(to_chrono(&converted), Some(value));
            }
        }
    }

    #[test]
    fn other_values_are_none() {
        let beyond = Value::ChronoDate(Some(NaiveDate::MAX));
        assert_eq!(from_chrono(&beyond), None);
        assert_eq!(from_chrono(&Value::Int(None)), None);
        assert_eq!(to_chrono(&Value::Int(None)), None);
    }
}
