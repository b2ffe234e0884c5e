//! Orders and their payments, matched by a process function over two streams; an order that
//! nobody pays within an hour goes to a side output. Both streams come from vectors, and what the
//! job finds is collected into one: so a job of your own can be tested whole.

use thalweg::prelude::*;

/// How long an order waits for its payment.
const PATIENCE: Micros = HOUR;

#[derive(Clone, Debug, PartialEq, Record)]
struct Order {
    order: u64,
    cents: i64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Payment {
    order: u64,
    cents: i64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Settled {
    order: u64,
    owed_cents: i64,
    #[record(time)]
    at: Timestamp,
}

const UNPAID: SideOutput<Order> = SideOutput::new("unpaid");

/// The order's cents and time, and what has been paid; either may come first.
#[derive(Clone, Default)]
struct Match {
    order: ValueState<(i64, Timestamp)>,
    paid: ListState<(i64, Timestamp)>,
}

impl Match {
    fn settle(&self, cx: &mut ProcessContext<'_, Settled>) -> Result<()> {
        let paid = self.paid.get(cx.state())?;
        if let Some((cents, ordered)) = self.order.get(cx.state())?.copied()
            && let Some(latest) = paid.iter().map(|(_, at)| *at).max()
        {
            let owed_cents = cents - paid.iter().map(|(cents, _)| cents).sum::<i64>();
            cx.emit(Settled { order: cx.key(0)?, owed_cents, at: latest.max(ordered) });
            self.order.clear(cx.state())?;
            self.paid.clear(cx.state())?;
        }
        Ok(())
    }
}

impl KeyedCoProcess for Match {
    type Left = Order;
    type Right = Payment;
    type Out = Settled;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.order = cx.value("order")?;
        self.paid = cx.list("paid")?;
        Ok(())
    }

    fn process_left(&mut self, order: OrderRow<'_>, cx: &mut ProcessContext<'_, Settled>) -> Result<()> {
        self.order.set(cx.state(), (order.cents, order.at))?;
        cx.register_event_timer(order.at + PATIENCE)?;
        self.settle(cx)
    }

    fn process_right(&mut self, paid: PaymentRow<'_>, cx: &mut ProcessContext<'_, Settled>) -> Result<()> {
        self.paid.append(cx.state(), (paid.cents, paid.at))?;
        self.settle(cx)
    }

    fn on_timer(&mut self, _timer: Timer, cx: &mut ProcessContext<'_, Settled>) -> Result<()> {
        if let Some((cents, at)) = self.order.get(cx.state())?.copied() {
            self.order.clear(cx.state())?;
            let order = cx.key(0)?;
            cx.emit_to(UNPAID, Order { order, cents, at });
        }
        Ok(())
    }

    fn side_outputs(&self) -> SideOutputs {
        SideOutputs::one(UNPAID)
    }
}

fn orders() -> Vec<Order> {
    (1..=4).map(|order| Order { order, cents: 500, at: Timestamp(order as i64 * MINUTE) }).collect()
}

fn payments() -> Vec<Payment> {
    let paid = |order, cents, minute| Payment { order, cents, at: Timestamp(minute * MINUTE) };
    vec![paid(2, 500, 9), paid(1, 450, 30), paid(4, 500, 40)]
}

fn matched(env: &Environment) -> Result<TypedStream<Settled>> {
    let in_order = WatermarkStrategy::bounded_out_of_order(0);
    let orders =
        env.source(VecSource::of(&orders())?).typed::<Order>().watermarks(in_order.clone()).uid("orders");
    let payments = env.source(VecSource::of(&payments())?).typed::<Payment>();
    let payments = payments.watermarks(in_order).uid("payments");
    Ok(orders.key_by(["order"]).process_with(&payments.key_by(["order"]), Match::default()).uid("match"))
}

fn main() -> Result<()> {
    let env = Environment::new();
    let settled = matched(&env)?;
    settled.sink(PrintSink::new()).uid("out");
    settled.side_output(UNPAID).sink(PrintSink::new().prefix("unpaid")).uid("unpaid");
    Job::new("orders").parallelism(2).run(&env).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paid_orders_are_settled_and_the_others_are_said_to_be_unpaid() {
        let env = Environment::new();
        let settled = matched(&env).unwrap();
        let (found, unpaid) = (Collected::new(), Collected::new());
        settled.sink(found.exactly_once_sink()).uid("out");
        settled.side_output(UNPAID).sink(unpaid.exactly_once_sink()).uid("unpaid");
        Job::new("orders").parallelism(2).run(&env).unwrap();
        let mut found = found.records::<Settled>().unwrap();
        found.sort_by_key(|settled| settled.order);
        let found: Vec<_> = found.iter().map(|settled| (settled.order, settled.owed_cents)).collect();
        assert_eq!(found, [(1, 50), (2, 0), (4, 0)]);
        assert_eq!(unpaid.records::<Order>().unwrap(), orders()[2..3]);
    }
}
