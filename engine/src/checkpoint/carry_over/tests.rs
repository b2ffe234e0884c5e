//! The table: every fate, what is refused and what is not, without a store.

use proptest::prelude::*;

use super::*;

fn uid(name: &str) -> Uid {
    Uid::new(name).unwrap()
}

fn identity(what: &str) -> StateIdentity {
    StateIdentity::of("aggregate").with("aggregates", what)
}

fn held(name: &str, what: &str) -> HeldState {
    HeldState {
        uid: uid(name),
        identity: Some(identity(what)),
        what: Some("the state of 2 instances".into()),
    }
}

fn state(name: &str, what: &str) -> JobState {
    JobState { uid: uid(name), identity: identity(what), uids_before: Vec::new(), uid_by_place: None }
}

fn was(name: &str, what: &str, before: &str) -> JobState {
    JobState { uids_before: vec![uid(before)], ..state(name, what) }
}

fn checkpoint(states: Vec<HeldState>) -> HeldJob {
    let checkpoint = CheckpointId { generation: 2, number: 7 };
    HeldJob { checkpoint, is_finished: false, max_parallelism: 128, states }
}

fn table(states: Vec<HeldState>, job: &[JobState]) -> CarryOver {
    carry_over(&checkpoint(states), job, 128, &AllowedChanges::default())
}

fn fates(table: &CarryOver) -> Vec<(&str, &Fate)> {
    table.rows.iter().map(|row| (row.uid.as_str(), &row.fate)).collect()
}

fn kept(from: &str) -> Fate {
    Fate::Kept { from: uid(from) }
}

#[test]
fn h7_the_same_job_keeps_everything_and_a_new_operator_starts_empty() {
    let table = table(vec![held("a", "count(*)")], &[state("a", "count(*)"), state("b", "sum(x)")]);
    assert_eq!(fates(&table), [("a", &kept("a")), ("b", &Fate::New)]);
    table.check().unwrap();
    assert_eq!(table.summary(), "checkpoint 2-7: 1 kept, 1 new");
}

#[test]
fn h7_what_is_gone_is_refused_by_name_with_what_it_was_and_what_to_do() {
    let table = table(vec![held("a", "count(*)"), held("b", "sum(x)")], &[state("b", "sum(x)")]);
    assert_eq!(fates(&table), [("a", &Fate::Gone { allowed: false }), ("b", &kept("b"))]);
    let said = table.check().unwrap_err();
    assert_eq!(said.blame(), crate::Blame::User);
    let said = said.to_string();
    for part in [
        "checkpoint 2-7",
        "gone: a",
        "aggregate; aggregates count(*)",
        "--allow-dropped-state a",
        "uid_was: a",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("sum(x)"), "{said}");
}

#[test]
fn h7_what_is_changed_is_refused_by_name_with_both_descriptions_and_what_to_do() {
    let table = table(vec![held("a", "count(*)")], &[state("a", "sum(x)")]);
    let said = table.check().unwrap_err().to_string();
    for part in [
        "changed: a",
        "aggregates was count(*), is sum(x)",
        "in the checkpoint: aggregate; aggregates count(*)",
        "in the job: aggregate; aggregates sum(x)",
        "--start-empty a",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn h7_both_are_allowed_by_name_and_an_allowance_that_is_not_needed_does_nothing() {
    let (states, job) = (vec![held("a", "count(*)"), held("b", "sum(x)")], [state("b", "max(x)")]);
    let one = AllowedChanges { dropped: ["a".to_string()].into(), ..AllowedChanges::default() };
    assert!(carry_over(&checkpoint(states.clone()), &job, 128, &one).check().is_err());
    let both = AllowedChanges { start_empty: ["b".to_string()].into(), ..one };
    let table = carry_over(&checkpoint(states.clone()), &job, 128, &both);
    table.check().unwrap();
    assert_eq!(table.kept().count(), 0);
    // The job goes on with what it keeps now: left standing, the same words cost nothing.
    let table = carry_over(&checkpoint(vec![held("b", "max(x)")]), &job, 128, &both);
    assert_eq!(fates(&table), [("b", &kept("b"))]);
}

#[test]
fn h7_an_alias_renames_and_does_nothing_once_the_checkpoint_has_the_new_name() {
    let job = [was("per-user", "count(*)", "a")];
    assert_eq!(fates(&table(vec![held("a", "count(*)")], &job)), [("per-user", &kept("a"))]);
    let later = table(vec![held("per-user", "count(*)")], &job);
    assert_eq!(fates(&later), [("per-user", &kept("per-user"))]);
    // What an alias finds is compared as everything is.
    let said = table(vec![held("a", "sum(x)")], &job).check().unwrap_err().to_string();
    assert!(said.contains("changed: per-user, which was a,"), "{said}");
    // Somebody else has the old name now: the state is his.
    let taken = [was("b", "count(*)", "a"), state("a", "count(*)")];
    assert_eq!(fates(&table(vec![held("a", "count(*)")], &taken)), [("a", &kept("a")), ("b", &Fate::New)]);
}

#[test]
fn h7_a_renamed_operator_is_recognised_and_the_alias_is_proposed() {
    let said = table(vec![held("a", "count(*)")], &[state("b", "count(*)")]).check().unwrap_err().to_string();
    assert!(said.contains("if b, which is new, is the same, say `uid_was: a` there"), "{said}");
}

#[test]
fn h7_output_that_is_committed_is_no_state_to_lose() {
    let sink = StateIdentity::of("file sink");
    let idle = HeldState { uid: uid("out"), identity: Some(sink.clone()), what: None };
    table(vec![idle.clone()], &[]).check().unwrap();
    // Nor does another kind of sink under its name find anything.
    assert_eq!(fates(&table(vec![idle.clone()], &[state("out", "count(*)")])), [("out", &Fate::New)]);
    let owing = HeldState { what: Some("uncommitted output".into()), ..idle };
    let said = table(vec![owing], &[]).check().unwrap_err().to_string();
    assert!(said.contains("gone: out is in the checkpoint (file sink: uncommitted output)"), "{said}");
}

#[test]
fn h5_h7_a_checkpoint_without_identities_is_found_by_the_uids_of_its_time_and_not_compared() {
    let old = HeldState { identity: None, ..held("aggregate-1", "") };
    let job = [JobState { uid_by_place: Some(uid("aggregate-1")), ..state("aggregate-by-user", "count(*)") }];
    assert_eq!(fates(&table(vec![old.clone()], &job)), [("aggregate-by-user", &kept("aggregate-1"))]);
    // With identities nothing goes by its place.
    let new = held("aggregate-1", "count(*)");
    assert!(table(vec![new], &job).check().is_err());
    let said = table(vec![old], &[]).check().unwrap_err().to_string();
    assert!(said.contains("gone: aggregate-1 is in the checkpoint (the state of 2 instances)"), "{said}");
}

#[test]
fn h7_another_number_of_key_groups_is_refused() {
    let (states, job) = (vec![held("a", "count(*)")], [state("a", "count(*)")]);
    let said = carry_over(&checkpoint(states.clone()), &job, 64, &AllowedChanges::default()).check();
    let said = said.unwrap_err().to_string();
    assert!(said.contains("max_parallelism is 64, and the checkpoint was made with 128"), "{said}");
    let over = AllowedChanges { start_over: true, ..AllowedChanges::default() };
    carry_over(&checkpoint(states), &job, 64, &over).check().unwrap();
}

#[test]
fn h7_starting_over_takes_nothing_and_is_refused_nothing() {
    let over = AllowedChanges { start_over: true, ..AllowedChanges::default() };
    let table = carry_over(&checkpoint(vec![held("a", "1"), held("b", "1")]), &[state("a", "1")], 128, &over);
    table.check().unwrap();
    assert_eq!(table.kept().count(), 0);
    assert!(table.to_string().ends_with("a run starts over\n"), "{table}");
}

#[test]
fn h7_the_table_is_printed_a_line_for_each() {
    let job = [was("per-user", "count(*)", "a"), state("new", "max(x)"), state("b", "min(x)")];
    let table = table(vec![held("a", "count(*)"), held("b", "sum(x)"), held("c", "1")], &job);
    let printed = table.to_string();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        &lines[..5],
        [
            "checkpoint 2-7: 1 kept, 1 new, 1 changed, 1 gone",
            "  changed  b         aggregate; aggregates min(x)  (refused: aggregates was sum(x), is min(x))",
            "  gone     c         aggregate; aggregates 1: the state of 2 instances  (refused)",
            "  new      new       aggregate; aggregates max(x)  (starts empty)",
            "  kept     per-user  aggregate; aggregates count(*)  (was a)",
        ]
    );
    assert_eq!(lines[5], "a run is refused:");
}

proptest! {
    /// Whatever the job and the checkpoint: no state is taken twice, and none is lost without being
    /// refused by its name.
    #[test]
    fn h7_no_state_is_lost_unnamed_and_none_is_taken_twice(
        names in prop::collection::btree_set(0..6_u8, 0..6),
        job in prop::collection::btree_map(0..6_u8, (0..2_u8, prop::option::of(0..6_u8)), 0..6),
    ) {
        let name = |n: &u8| format!("op-{n}");
        let states: Vec<_> = names.iter().map(|n| held(&name(n), &(n % 2).to_string())).collect();
        let job: Vec<_> = job.iter().map(|(n, (what, before))| {
            let uids_before = before.iter().map(|before| uid(&name(before))).collect();
            JobState { uids_before, ..state(&name(n), &what.to_string()) }
        }).collect();
        let table = table(states, &job);
        let refused = table.check().err().map(|error| error.to_string()).unwrap_or_default();
        for n in &names {
            let held = uid(&name(n));
            let takers = table.kept().filter(|(from, _)| **from == held).count();
            let is_named = refused.contains(&format!("gone: {held} "))
                || table.rows.iter().any(|row| matches!(&row.fate, Fate::Changed { from, .. } if *from == held));
            // Two that give the same earlier name are refused when the job is built.
            let claimed = job.iter().filter(|state| state.uids_before.contains(&held)).count();
            prop_assert!(takers <= claimed.max(1), "{table}");
            prop_assert!(takers > 0 || is_named, "{held} is lost: {table}");
        }
    }
}
