//! Sessions of a site's visitors, by a process function: state, timers, a side output. The tests
//! below drive it by hand, as a test of your own would.

use thalweg::prelude::*;

/// A session is over when its visitor has done nothing for so long.
const SILENCE: Micros = 30 * MINUTE;

#[derive(Clone, Debug, PartialEq, Record)]
struct Click {
    user: String,
    page: String,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Session {
    user: String,
    clicks: u64,
    began: Timestamp,
    #[record(time)]
    ended: Timestamp,
}

/// Clicks that come when the watermark has passed them.
const TOO_LATE: SideOutput<Click> = SideOutput::new("too-late");

/// What is known of a session that is not over.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, StateSize)]
struct Open {
    clicks: u64,
    began: Timestamp,
    last: Timestamp,
}

#[derive(Clone, Default)]
struct Sessions {
    open: ValueState<Open>,
}

impl KeyedProcess for Sessions {
    type In = Click;
    type Out = Session;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.open = cx.value("open")?;
        Ok(())
    }

    fn process(&mut self, click: ClickRow<'_>, cx: &mut ProcessContext<'_, Session>) -> Result<()> {
        if cx.is_late() {
            cx.emit_row_to(TOO_LATE, click);
            return Ok(());
        }
        let known = self.open.get(cx.state())?.cloned();
        let mut open = known.unwrap_or(Open { clicks: 0, began: click.at, last: click.at });
        open.clicks += 1;
        open.began = open.began.min(click.at);
        open.last = open.last.max(click.at);
        cx.register_event_timer(open.last + SILENCE)?;
        self.open.set(cx.state(), open)
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Session>) -> Result<()> {
        // A later click has set a later timer.
        let open = self.open.get(cx.state())?.cloned();
        if let Some(open) = open.filter(|open| open.last + SILENCE <= timer.time) {
            self.open.clear(cx.state())?;
            let user = cx.key(0)?;
            cx.emit(Session { user, clicks: open.clicks, began: open.began, ended: open.last });
        }
        Ok(())
    }

    fn side_outputs(&self) -> SideOutputs {
        SideOutputs::one(TOO_LATE)
    }
}

fn click(user: &str, minute: i64) -> Click {
    Click { user: user.into(), page: format!("/{minute}"), at: Timestamp(minute * MINUTE) }
}

fn main() -> Result<()> {
    let clicks = [("ada", 0), ("bob", 3), ("ada", 10), ("ada", 55), ("bob", 20), ("bob", 70)];
    let clicks = clicks.map(|(user, minute)| click(user, minute));

    let env = Environment::new();
    let clicks = env.source(VecSource::of(&clicks)?).typed::<Click>();
    let clicks = clicks.watermarks(WatermarkStrategy::bounded_out_of_order(35 * MINUTE));
    let sessions = clicks.key_by(["user"]).process(Sessions::default()).uid("sessions");
    sessions.sink(PrintSink::new()).uid("out");
    sessions.side_output(TOO_LATE).sink(PrintSink::new().prefix("late")).uid("late");
    Job::new("sessions").run(&env).map(drop)
}

#[cfg(test)]
mod tests {
    use thalweg::testing::*;

    use super::*;

    fn session(user: &str, clicks: u64, began: i64, ended: i64) -> Session {
        let [began, ended] = [began, ended].map(|minute| Timestamp(minute * MINUTE));
        Session { user: user.into(), clicks, began, ended }
    }

    #[test]
    fn a_session_ends_when_the_watermark_says_that_nobody_came() {
        let mut harness = process_harness(Sessions::default(), &["user"]).unwrap().open().unwrap();
        harness.push(0, [click("ada", 10), click("ada", 0), click("bob", 3)]).unwrap();
        harness.watermark(0, 39 * MINUTE).unwrap();
        assert_eq!(harness.take_records::<Session>(0).unwrap(), [session("bob", 1, 3, 3)]);
        harness.watermark(0, 40 * MINUTE).unwrap();
        assert_eq!(harness.take_records::<Session>(0).unwrap(), [session("ada", 2, 0, 10)]);
        harness.push(0, [click("ada", 40)]).unwrap();
        assert_eq!(harness.take_records::<Click>(1).unwrap(), [click("ada", 40)]);
    }

    #[test]
    fn an_open_session_outlives_a_restart_at_another_parallelism() {
        let builder = process_harness(Sessions::default(), &["user"]).unwrap();
        let mut first = builder.open().unwrap();
        first.push(0, [click("ada", 0), click("bob", 5)]).unwrap();
        let mut second = builder.parallelism(3).restore(&first.snapshot().unwrap()).unwrap();
        second.push(0, [click("ada", 20)]).unwrap();
        second.end(0).unwrap();
        let mut sessions = second.take_records::<Session>(0).unwrap();
        sessions.sort_by(|a, b| a.user.cmp(&b.user));
        assert_eq!(sessions, [session("ada", 2, 0, 20), session("bob", 1, 5, 5)]);
    }
}
