//! Room is bounded, fair and given back.

use super::*;
use proptest::prelude::*;

fn client(number: u16) -> Client {
    Some(SocketAddr::from(([127, 0, 0, 1], number)))
}

#[test]
fn one_client_leaves_room_for_others_and_many_share_it() {
    let mut room: Room<()> = Room::new(1_000);
    let taken = |room: &mut Room<()>, number| (0..).take_while(|_| room.try_take(client(number), 10)).count();
    assert_eq!(taken(&mut room, 1), 50, "half of the room");
    assert_eq!(taken(&mut room, 2), 25);
    assert!((1..25).contains(&taken(&mut room, 3)));
    room.give_back(client(1), 500);
    assert!(taken(&mut room, 3) > 0);
    assert!(room.free > 0);
}

#[test]
fn a_large_request_of_a_client_that_holds_nothing_takes_what_is_free() {
    let mut room: Room<()> = Room::new(1_000);
    assert!(room.try_take(client(1), 400));
    assert!(room.try_take(client(2), 600));
    assert!(!room.try_take(client(3), 1));
}

#[test]
fn room_goes_to_who_holds_least_and_nobody_overtakes_him() {
    let mut room = Room::new(1_000);
    assert!(room.try_take(client(1), 500) && room.try_take(client(2), 400));
    room.wait(client(1), 10, "rich");
    room.wait(client(3), 300, "poor");
    assert!(!room.try_take(client(4), 10), "somebody waits who holds as little");
    assert!(room.next().is_none(), "300 are not free");
    room.give_back(client(2), 400);
    assert_eq!(room.next().unwrap().tell, "poor");
    assert!(room.next().is_none(), "the rich one holds more than is free");
}

proptest! {
    #[test]
    fn what_is_held_and_what_is_free_is_all_there_is_and_nobody_starves(
        steps in prop::collection::vec((0u16..6, 1usize..400), 1..200)
    ) {
        let mut room = Room::new(1_000);
        let mut held: Vec<(Client, usize)> = Vec::new();
        for (number, bytes) in steps {
            match number {
                5 if !held.is_empty() => {
                    let (client, bytes) = held.remove(bytes % held.len());
                    room.give_back(client, bytes);
                }
                _ if room.try_take(client(number), bytes) => held.push((client(number), bytes)),
                _ => room.wait(client(number), bytes, ()),
            }
            while let Some(next) = room.next() {
                held.push((next.client, next.bytes));
            }
            let sum: usize = held.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(room.free + sum, 1_000);
        }
        // When everything comes back, everybody who waits gets his turn.
        while !room.waiting.is_empty() {
            prop_assert!(!held.is_empty(), "somebody waits for an empty room");
            let (client, bytes) = held.remove(0);
            room.give_back(client, bytes);
            while let Some(next) = room.next() {
                held.push((next.client, next.bytes));
            }
        }
    }
}

#[tokio::test]
async fn a_request_without_room_is_refused_in_time_and_its_place_is_free_again() {
    let limits = AdmissionLimits { bytes: 100, calls: 2, wait: Duration::from_millis(20) };
    let admission = Admission::new(limits, &MetricGroup::default());
    let all = admission.take(client(1), 1_000).await.ok().unwrap();
    assert_eq!(all.bytes, 100, "more than there is takes what there is");
    assert_eq!(admission.take(client(2), 10).await.err(), Some(Refused::Room(100)));
    let waits = tokio::spawn({
        let admission = admission.clone();
        async move { admission.take(client(3), 60).await.ok().map(|permit| permit.bytes) }
    });
    tokio::task::yield_now().await;
    drop(all);
    assert_eq!(waits.await.unwrap(), Some(60));
    assert!(admission.take(client(4), 100).await.is_ok());
    let calls = (admission.call().ok().unwrap(), admission.call().ok().unwrap());
    assert_eq!(admission.call().err(), Some(Refused::Calls(2)));
    drop(calls);
    assert!(admission.call().is_ok());
}
