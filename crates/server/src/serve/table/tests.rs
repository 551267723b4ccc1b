use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use weir_accounts::AccountId;

use super::kinds::{ShareIsTaken, TURNED_AWAY_MAX};
use super::*;

fn address(nth: u8) -> Option<ClientAddress> {
    Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, nth)).into())
}

fn table(connections_max: usize, per_address_max: usize, reserve: usize) -> ConnectionTable {
    ConnectionTable::new(TableLimits::new(connections_max, per_address_max, reserve))
}

#[track_caller]
fn enter(table: &ConnectionTable, from: Option<ClientAddress>) -> Place {
    match table.try_enter(from) {
        Entered::At(place) => place,
        other => panic!("no place: {other:?}"),
    }
}

fn must_end(place: &Place) -> bool {
    place.close_is_wanted()
}

fn account(name: &str) -> AccountId {
    AccountId::from(name.to_owned())
}

#[test]
fn the_longest_idle_connection_makes_room() {
    let table = table(3, 3, 0);
    let places: Vec<_> = (1..=3).map(|nth| enter(&table, address(nth))).collect();
    // The first connection was used last.
    drop(places[0].request(None));
    let _fourth = enter(&table, address(4));
    let ends: Vec<_> = places.iter().map(must_end).collect();
    assert_eq!(ends, [false, true, false]);
    let mut places = places.into_iter();
    let (first, second) = (places.next().unwrap(), places.next());
    drop(second);
    let _fifth = enter(&table, address(5));
    assert!(must_end(&places.next().unwrap()) && !must_end(&first));
}

/// Connections that were told to end and don't keep no others waiting, until there are `CLOSING_MAX` of them.
#[test]
fn connections_that_do_not_end_are_few() {
    let table = table(100, 1000, 0);
    let stuck: Vec<_> = (0..100).map(|_| enter(&table, None)).collect();
    let new: Vec<_> = (0..CLOSING_MAX).map(|_| enter(&table, None)).collect();
    assert!(matches!(table.try_enter(None), Entered::Wait));
    assert_eq!(
        stuck.iter().filter(|place| must_end(place)).count(),
        CLOSING_MAX
    );
    drop(stuck);
    enter(&table, None);
    assert!(!new.iter().any(must_end));
}

#[test]
fn connections_with_a_key_are_closed_after_those_without() {
    let table = table(2, 2, 0);
    let (keyed, other) = (enter(&table, address(1)), enter(&table, address(2)));
    keyed.has_key(&account("a")).unwrap();
    drop(keyed.request(None));
    drop(other.request(None));
    enter(&table, address(3));
    assert_eq!((must_end(&keyed), must_end(&other)), (false, true));
}

#[test]
fn a_connection_on_which_a_request_runs_stays() {
    let table = table(1, 1, 0);
    let place = enter(&table, address(1));
    let (running, _) = place.request(None);
    assert!(matches!(table.try_enter(address(2)), Entered::Wait));
    assert!(!must_end(&place));
    drop(running);
    enter(&table, address(2));
    assert!(must_end(&place));
}

#[test]
fn a_request_that_comes_when_its_connection_is_told_to_end_is_served() {
    let table = table(2, 2, 0);
    let (first, second) = (enter(&table, address(1)), enter(&table, address(2)));
    let _third = enter(&table, address(3));
    assert!(must_end(&first));
    let (running, _) = first.request(None);
    assert!(first.is_busy());
    let _fourth = enter(&table, address(4));
    assert!(must_end(&second), "another one makes room meanwhile");
    drop(running);
    drop(first);
    assert_eq!(table.lock().closing(), 1);
}

#[test]
fn an_address_closes_its_own_and_then_is_turned_away() {
    let table = table(100, 2, 0);
    let other = enter(&table, address(9));
    let (first, second) = (enter(&table, address(1)), enter(&table, address(1)));
    let third = enter(&table, address(1));
    assert_eq!((must_end(&first), must_end(&second)), (true, false));
    let busy = [second.request(None), third.request(None)];
    let away = enter(&table, address(1));
    assert_eq!(away.kind(), PlaceKind::TurnedAway);
    assert!(!must_end(&other));
    let more: Vec<_> = (1..TURNED_AWAY_MAX)
        .map(|_| enter(&table, address(1)))
        .collect();
    assert!(matches!(table.try_enter(address(1)), Entered::Dropped));
    assert_eq!(enter(&table, address(2)).kind(), PlaceKind::Ordinary);
    drop((busy, more));
    assert_eq!(enter(&table, address(1)).kind(), PlaceKind::Ordinary);
    // Connections of a trusted proxy count for no client.
    for _ in 0..10 {
        assert_eq!(enter(&table, None).kind(), PlaceKind::Ordinary);
    }
}

#[test]
fn a_proxys_clients_have_shares_too() {
    let table = table(10, 2, 0);
    let proxy = [
        enter(&table, None),
        enter(&table, None),
        enter(&table, None),
    ];
    let client = address(1);
    let first = proxy[0].request(client);
    let second = proxy[1].request(client);
    assert_eq!((first.1, second.1), (Ok(()), Ok(())));
    assert_eq!(proxy[2].request(client).1, Err(ShareIsTaken));
    assert_eq!(proxy[2].request(address(2)).1, Ok(()));
    // A direct connection and a forwarded request count against the same share.
    assert_eq!(enter(&table, client).kind(), PlaceKind::TurnedAway);
    drop(first);
    let direct = enter(&table, client);
    assert_eq!(direct.kind(), PlaceKind::Ordinary);
    assert_eq!(proxy[0].request(client).1, Err(ShareIsTaken));
}

#[test]
fn the_reserve_is_for_short_answers_and_a_few_callers() {
    let table = table(64, 64, 16);
    let ordinary: Vec<_> = (0..48).map(|_| enter(&table, None)).collect();
    let running: Vec<_> = ordinary.iter().map(|place| place.request(None)).collect();
    let reserve: Vec<_> = (0..16).map(|_| enter(&table, None)).collect();
    assert!(
        reserve
            .iter()
            .all(|place| place.kind() == PlaceKind::Reserve)
    );
    let busy: Vec<_> = reserve[..12]
        .iter()
        .map(|place| place.request(None))
        .collect();
    let (a, b) = (account("a"), account("b"));
    // The reserve of 16 has 2 places for one account's callers, and 8 for all callers with a key.
    let served: Vec<_> = reserve[..4].iter().map(|place| place.has_key(&a)).collect();
    assert_eq!(
        served,
        [Ok(()), Ok(()), Err(ReserveIsFull), Err(ReserveIsFull)]
    );
    assert_eq!(reserve[4].has_key(&b), Ok(()));
    for (nth, name) in (5..10).zip(["c", "d", "e", "f", "g"]) {
        assert_eq!(reserve[nth].has_key(&account(name)), Ok(()));
    }
    assert_eq!(reserve[10].has_key(&account("h")), Err(ReserveIsFull));
    // The longest idle connection makes room in the reserve as well.
    let one_more = enter(&table, None);
    assert!(must_end(&reserve[12]) && !must_end(&reserve[13]));
    drop((busy, reserve, running, ordinary, one_more));
    assert!(table.lock().is_empty());
}

#[test]
fn small_tables_have_no_reserve() {
    for (max, reserve) in [(1, 0), (3, 0), (4, 1), (256, 64), (4096, 64)] {
        assert_eq!(TableLimits::new(max, 1, 64).reserve, reserve, "{max}");
    }
}

const KINDS: [PlaceKind; 3] = [
    PlaceKind::Ordinary,
    PlaceKind::Reserve,
    PlaceKind::TurnedAway,
];

#[derive(Debug, Clone)]
enum Act {
    Enter(Option<u8>),
    Leave(usize),
    Request(usize, Option<u8>),
    End(usize),
    Key(usize, u8),
}

fn act() -> impl Strategy<Value = Act> {
    let from = || prop::option::weighted(0.8, 0u8..4);
    prop_oneof![
        3 => from().prop_map(Act::Enter),
        1 => any::<usize>().prop_map(Act::Leave),
        2 => (any::<usize>(), from()).prop_map(|(nth, from)| Act::Request(nth, from)),
        2 => any::<usize>().prop_map(Act::End),
        1 => (any::<usize>(), 0u8..3).prop_map(|(nth, name)| Act::Key(nth, name)),
    ]
}

proptest! {
    /// There are never more connections than places, the counts are those of the connections, and at the end the table
    /// is empty.
    #[test]
    fn counts_are_right(acts in prop::collection::vec(act(), 0..200), per_address_max in 1usize..6) {
        let table = table(12, per_address_max, 3);
        let mut open: Vec<(Place, Option<RequestGuard>)> = Vec::new();
        for act in acts {
            match act {
                Act::Enter(from) => {
                    if let Entered::At(place) = table.try_enter(from.and_then(address)) {
                        open.push((place, None));
                    }
                    // An idle connection that is told to end closes.
                    open.retain(|(place, running)| running.is_some() || !must_end(place));
                }
                Act::Leave(nth) if !open.is_empty() => drop(open.swap_remove(nth % open.len())),
                Act::Request(nth, forwarded) if !open.is_empty() => {
                    let nth = nth % open.len();
                    if open[nth].1.is_none() {
                        let (guard, _) = open[nth].0.request(forwarded.and_then(address));
                        open[nth].1 = Some(guard);
                    }
                }
                Act::End(nth) if !open.is_empty() => {
                    let nth = nth % open.len();
                    open[nth].1 = None;
                    if must_end(&open[nth].0) {
                        open.swap_remove(nth);
                    }
                }
                Act::Key(nth, name) if !open.is_empty() => {
                    let _ = open[nth % open.len()].0.has_key(&account(&name.to_string()));
                }
                _ => {}
            }
            let mut state = table.lock();
            let mut counted = [0; 3];
            for (kind, counted) in KINDS.into_iter().zip(&mut counted) {
                let open = open.iter().filter(|(place, _)| place.kind() == kind);
                *counted = state.pool(kind).counted();
                prop_assert_eq!(*counted, open.count());
            }
            // A connection that was told to end just as a request arrived is one more than the limit allows.
            let late = open.iter().filter(|(place, running)| running.is_some() && must_end(place));
            prop_assert!(counted[0] + counted[1] <= 12 + late.count());
            prop_assert_eq!(state.closing(), 0);
            let idle = open.iter().filter(|(place, running)| {
                running.is_none() && place.kind() != PlaceKind::TurnedAway
            });
            prop_assert_eq!(state.idle(), idle.count());
        }
        open.clear();
        prop_assert!(table.lock().is_empty());
    }
}
