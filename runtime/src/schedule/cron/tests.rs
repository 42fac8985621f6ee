use super::*;

const NOW: Timestamp = Timestamp(1_764_028_800_000); // 2025-11-25T00:00:00Z

fn error(line: &str, zone: &str) -> String {
    CronLine::parse(line, zone, NOW).unwrap_err().to_string()
}

/// The next ticks, as a clock in the zone shows them, as many as are wanted.
#[track_caller]
fn come(line: &str, zone: &str, after: &str, wanted: &[&str]) {
    let line = CronLine::parse(line, zone, NOW).unwrap();
    let after = Timestamp(after.parse::<jiff::Timestamp>().unwrap().as_millisecond());
    let ticks = std::iter::successors(line.next_after(after), |tick| line.next_after(*tick));
    let shown: Vec<String> = ticks.take(wanted.len()).map(|tick| line.show(tick)).collect();
    assert_eq!(shown, wanted);
}

#[test]
fn a_line_has_five_fields_or_six_with_seconds_first() {
    let after = "2026-01-01T00:00:00Z";
    come("30 7 * * *", "UTC", after, &["2026-01-01T07:30:00+00:00", "2026-01-02T07:30:00+00:00"]);
    come("15 30 7 * * *", "UTC", after, &["2026-01-01T07:30:15+00:00", "2026-01-02T07:30:15+00:00"]);
    come("* * * * * *", "UTC", after, &["2026-01-01T00:00:01+00:00", "2026-01-01T00:00:02+00:00"]);
    // A tick comes after a moment, not at it; a part of a second is none.
    come("* * * * *", "UTC", "2026-01-01T00:00:59.999Z", &["2026-01-01T00:01:00+00:00"]);
    come("* * * * *", "UTC", "2026-01-01T00:01:00Z", &["2026-01-01T00:02:00+00:00"]);
}

#[test]
fn a_line_has_names_lists_ranges_and_steps() {
    let after = "2026-01-01T00:00:00Z";
    come("0 7 * * MON-FRI", "UTC", after, &["2026-01-01T07:00:00+00:00", "2026-01-02T07:00:00+00:00", "2026-01-05T07:00:00+00:00"]);
    come("0 0 1 mar,Sep *", "UTC", after, &["2026-03-01T00:00:00+00:00", "2026-09-01T00:00:00+00:00"]);
    come("10-20/5 3 * * *", "UTC", after, &["2026-01-01T03:10:00+00:00", "2026-01-01T03:15:00+00:00", "2026-01-01T03:20:00+00:00"]);
    come("0 0 L * *", "UTC", after, &["2026-01-31T00:00:00+00:00", "2026-02-28T00:00:00+00:00"]);
    come("0 0 * * 7", "UTC", after, &["2026-01-04T00:00:00+00:00"]);
    // A day of the month or a day of the week, as cron has it.
    come("0 0 3 * SUN", "UTC", after, &["2026-01-03T00:00:00+00:00", "2026-01-04T00:00:00+00:00"]);
    come("@hourly", "UTC", after, &["2026-01-01T01:00:00+00:00"]);
    come("@weekly", "UTC", after, &["2026-01-04T00:00:00+00:00"]);
    come("@Midnight", "Asia/Kolkata", after, &["2026-01-02T00:00:00+05:30"]);
    come("0 0 29 2 *", "UTC", after, &["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]);
}

#[test]
fn what_is_wrong_with_a_line_is_said_in_a_sentence() {
    for (line, part) in [
        ("", "but \"\" has 0"),
        ("* * * *", "but \"* * * *\" has 4"),
        ("* * * * * * *", "has 7"),
        ("60 * * * *", "\"60\" is no minute; minutes are 0 to 59"),
        ("0 24 * * *", "\"24\" is no hour; hours are 0 to 23"),
        ("0 0 0 * *", "\"0\" is no day of month; days are 1 to 31"),
        ("0 0 * 13 *", "\"13\" is no month; months are 1 to 12, or JAN to DEC"),
        ("0 0 * * 8", "\"8\" is no day of week"),
        ("99 0 0 * * *", "\"99\" is no second"),
        ("0 0 * MON *", "\"MON\" is no month"),
        ("JAN 0 * * *", "\"JAN\" is no minute"),
        ("0 0 * * MOND", "\"MOND\" is no day of week"),
        ("0 0 ä * *", "\"ä\" is no day of month"),
        ("5-1 * * * *", "\"5-1\" goes backwards; write \"5-59,0-1 * * * *\""),
        ("*/0 * * * *", "\"*/0\" is no minute"),
        ("1,,2 * * * *", "\"1,,2\" is no minute"),
        ("@reboot", "the names are @hourly"),
        ("0 0 30 2 *", "never comes: there is no such day in any year"),
        ("0 0 31 4,6,9,11 *", "never comes"),
    ] {
        let said = error(line, "UTC");
        assert!(said.contains(part), "{line}: {said}");
    }
    for zone in ["", "Berlin", "Europe/Nowhere", "Etc/Unknown", "+01:00"] {
        assert!(error("* * * * *", zone).starts_with(&format!("there is no time zone {zone:?}")), "{zone}");
    }
}

/// Cron programs read these in different ways, or the library reads them as less than they say.
#[test]
fn an_ambiguous_line_is_refused_with_the_line_to_write_instead() {
    for (line, instead) in [
        // From one value on.
        ("5/20 * * * *", "5-59/20 * * * *"),
        ("/20 * * * *", "*/20 * * * *"),
        ("0 0 1/10 * *", "0 0 1-31/10 * *"),
        ("0 0 * 3/3 *", "0 0 * 3-12/3 *"),
        ("0 0 * MAR/3 *", "0 0 * MAR-DEC/3 *"),
        ("0 0 * * MON/2", "0 0 * * MON-SAT/2"),
        ("50/20 * * * *", "50 * * * *"),
        ("0,5/20 1/2 * * *", "0,5-59/20 1-23/2 * * *"),
        // Over the end.
        ("0 0 * * FRI-MON", "0 0 * * FRI-SAT,SUN-MON"),
        ("0 0 * * 5-1", "0 0 * * 5-6,0-1"),
        ("0 0 * * SAT-MON", "0 0 * * SAT,SUN-MON"),
        ("0 0 * * 7-2", "0 0 * * 0-2"),
        ("0 0 * * 5-0", "0 0 * * 5-7"),
        ("0 0 * * SUN-SUN", "0 0 * * SUN"),
        ("0 22-6 * * *", "0 22-23,0-6 * * *"),
        ("0 22-6/2 * * *", "0 0,2,4,6,22 * * *"),
        ("50-10 * * * *", "50-59,0-10 * * * *"),
        ("0 0 25-5 * *", "0 0 25-31,1-5 * *"),
        ("0 0 * NOV-FEB *", "0 0 * NOV-DEC,JAN-FEB *"),
        // Steps that leave one value.
        ("*/61 * * * *", "0 * * * *"),
        ("*/60 * * * *", "0 * * * *"),
        ("0 */24 * * *", "0 0 * * *"),
        ("0 0 */31 * *", "0 0 1 * *"),
        ("0 0 * */12 *", "0 0 * 1 *"),
        ("0 0 * * */7", "0 0 * * 0"),
        ("10-20/15 * * * *", "10 * * * *"),
        ("*/70 0 0 * * *", "0 0 0 * * *"),
        // Days.
        ("0 0 * * L", "0 0 * * SAT"),
        ("0 0 15 * L", "0 0 15 * SAT"),
        ("0 0 */2 * MON", "0 0 1-31/2 * MON"),
        ("0 0 1 * */2", "0 0 1 * 0-6/2"),
    ] {
        let said = error(line, "UTC");
        assert!(said.starts_with(&format!("the cron line {line:?} is not taken: ")) && said.ends_with(&format!("; write {instead:?}")), "{said}");
        CronLine::parse(instead, "UTC", NOW).unwrap();
    }
}

#[test]
fn a_line_that_the_library_would_misread_is_refused() {
    // Its words are numbers wherever they stand: these would be Monday, October, November and
    // November.
    for line in ["0 0 * * SUN1", "0 0 * JAN0 *", "0 0 * 1JAN *", "0 0 * JAN1 *"] {
        assert!(error(line, "UTC").contains("cannot be read"), "{line}");
    }
    // Of L and LW together it would take one.
    for line in [
        "0 0 L,LW * *",
        "0 0 L-3 * *",
        "0 0 W * *",
        "0 0 1-15W * *",
        "0 0 5L * *",
        "0 0 32W * *",
        "0 0 1# * *",
        "0 0 * * 5#0",
        "0 0 * * 5#6",
        "0 0 * * *#2",
        "0 0 * * #2",
        "0 0 * * 8L",
        "0 0 * * FRIL",
        "0 0 *,5 * *",
        "0 0 1? * *",
        "? 0 * * *",
        "0 0 ?/2 * *",
        "0 0 * * +MON",
        "1-2-3 * * * *",
        "*/5/2 * * * *",
        "*-5 * * * *",
        "5/ * * * *",
        "0 0 * L *",
        "256 * * * *",
        "*/ * * * *",
        "99999999999999999999 * * * *",
    ] {
        assert!(error(line, "UTC").contains("cannot be read"), "{line}: {}", error(line, "UTC"));
    }
}

#[test]
fn signs_for_days_mean_what_the_documentation_says() {
    let after = "2026-01-01T00:00:00Z";
    let day = |day: &str| format!("{day}T00:00:00+00:00");
    for (line, days) in [
        ("0 0 L * *", ["2026-01-31", "2026-02-28"]),
        // The first of February is a Sunday: its nearest weekday in the same month is the second.
        // The last of May is one, too.
        ("0 0 1W 2-12 *", ["2026-02-02", "2026-03-02"]),
        ("0 0 LW 5-12 *", ["2026-05-29", "2026-06-30"]),
        ("0 0 15W 2,3 *", ["2026-02-16", "2026-03-16"]),
        ("0 0 * * 5L", ["2026-01-30", "2026-02-27"]),
        ("0 0 * * FRI#L", ["2026-01-30", "2026-02-27"]),
        ("0 0 * * MON#2", ["2026-01-12", "2026-02-09"]),
        ("0 0 * * FRI-SUN", ["2026-01-02", "2026-01-03"]),
        ("0 0 ? * MON", ["2026-01-05", "2026-01-12"]),
        ("0 0 13 * ?", ["2026-01-13", "2026-02-13"]),
        // Either of them.
        ("0 0 13 * FRI", ["2026-01-02", "2026-01-09"]),
        ("0 0 1-31/10 * *", ["2026-01-11", "2026-01-21"]),
    ] {
        come(line, "UTC", after, &[&day(days[0]), &day(days[1])]);
    }
}

/// The hour from two to three is left out.
#[test]
fn in_spring_a_time_that_is_left_out_comes_at_the_end_of_the_gap() {
    for (zone, before, gap, then, next) in [
        ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"),
        ("America/New_York", "2026-03-07T12:00:00Z", "2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"),
    ] {
        come("30 2 * * *", zone, before, &[gap, next]);
        // All that is left out comes there once, also what has a time of its own at that moment.
        come("0,30 2-3 * * *", zone, before, &[gap, then]);
        come("0 3 * * *", zone, before, &[gap]);
    }
}

#[test]
fn in_spring_what_comes_every_so_often_goes_on_in_real_time() {
    let berlin = ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"];
    come("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", &berlin);
    let new_york = ["2026-03-08T01:00:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00"];
    come("@hourly", "America/New_York", "2026-03-08T05:59:00Z", &new_york);
    // Of a gap that is no whole hour too.
    let lord_howe = ["2026-10-04T01:50:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-04T02:40:00+11:00"];
    come("*/10 * * * *", "Australia/Lord_Howe", "2026-10-03T15:10:00Z", &lord_howe);
    come("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:10:00Z", &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]);
}

/// The hour from two to three (in New York from one to two) comes twice.
#[test]
fn in_autumn_a_time_that_comes_twice_is_one_tick() {
    come("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    come("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]);
    let list = ["2026-10-25T01:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T03:30:00+01:00"];
    come("30 1-3 * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", &list);
    // From within the second of the two hours.
    come("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", &["2026-10-26T02:30:00+01:00"]);
}

#[test]
fn in_autumn_what_comes_every_so_often_goes_on_in_real_time() {
    let berlin = [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ];
    come("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", &berlin);
    let new_york = ["2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T02:00:00-05:00"];
    come("0 * * * *", "America/New_York", "2026-11-01T04:30:00Z", &new_york);
    come("* * * * * *", "Europe/Berlin", "2026-10-25T00:59:59Z", &["2026-10-25T02:00:00+01:00", "2026-10-25T02:00:01+01:00"]);
}

/// Where nothing else is promised: over the days around a change each tick is later than the one before, and the clock on the wall shows what the line says.
#[test]
fn ticks_go_forward_over_every_change() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana", "Asia/Beirut"] {
        for line in ["*/7 * * * *", "13 */2 * * *", "0 0 * * *", "59 23 * * *", "5,35 0-3 * * *", "30 2 * * SUN"] {
            let line = CronLine::parse(line, zone, NOW).unwrap();
            let (mut at, end) = (NOW, Timestamp(NOW.0 + 370 * 86_400_000));
            while at < end {
                let next = line.next_after(at).unwrap();
                assert!(next > at && next.0 % 1_000 == 0);
                // What is asked from anywhere between the two finds the same.
                assert_eq!(line.next_after(Timestamp(next.0 - 1)), Some(next));
                assert_eq!(line.next_after(Timestamp(at.0.midpoint(next.0))), Some(next));
                at = next;
            }
        }
    }
}

#[test]
fn zones_are_there_on_a_machine_without_any() {
    let bundled = jiff::tz::TimeZoneDatabase::bundled();
    for zone in ["Europe/Berlin", "America/New_York", "UTC", "Asia/Kolkata"] {
        assert!(bundled.get(zone).is_ok(), "{zone}");
    }
}
