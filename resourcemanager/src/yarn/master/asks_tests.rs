use proptest::prelude::*;

use super::*;

fn stated(place: &str, count: u32, relax_locality: bool) -> StatedAsk {
    StatedAsk {
        priority: 1,
        request_id: 0,
        capability: Resource::new(64, 1),
        place: place.to_owned(),
        count,
        relax_locality,
        node_label: String::new(),
    }
}

fn grant_on(host: &str, number: u32) -> Grant {
    Grant {
        container: format!("container_e01_1_0001_01_{number:06}")
            .parse()
            .unwrap(),
        node: format!("{host}:1").parse().unwrap(),
        node_grpc_address: String::new(),
        node_http_address: String::new(),
        user: "alice".parse().unwrap(),
        resource: Resource::new(64, 1),
        priority: 1,
        request_id: 0,
        version: 0,
    }
}

/// `place=count` of each, `!` where no other place will do.
fn changes(book: &mut AskBook) -> Vec<String> {
    let asks = book.take_changes();
    let words = asks.iter().map(|ask| {
        let strict = if ask.relax_locality { "" } else { "!" };
        format!("{}={}{strict}", ask.key.place, ask.count)
    });
    words.collect()
}

fn state(book: &mut AskBook, asks: &[StatedAsk]) -> Vec<String> {
    book.state(asks, std::iter::empty()).unwrap();
    changes(book)
}

#[test]
fn a_plain_wish_is_one_ask_and_the_core_counts_it_down() {
    let mut book = AskBook::default();
    assert_eq!(state(&mut book, &[stated(ANY, 3, true)]), ["*=3"]);
    book.granted(&grant_on("a", 2));
    assert_eq!(changes(&mut book), Vec::<String>::new());
    // The master has received one and says what is left.
    assert_eq!(state(&mut book, &[stated(ANY, 2, true)]), ["*=2"]);
    assert_eq!(state(&mut book, &[stated(ANY, 0, true)]), ["*=0"]);
    assert!(book.groups.is_empty());
    assert_eq!(
        state(&mut book, &[stated(ANY, 0, true)]),
        Vec::<String>::new()
    );
}

#[test]
fn the_count_of_any_place_is_the_total() {
    let mut book = AskBook::default();
    let asks = [
        stated("a", 1, true),
        stated("b", 1, true),
        stated(DEFAULT_RACK, 2, true),
        stated(ANY, 3, true),
    ];
    assert_eq!(state(&mut book, &asks), ["a=1", "b=1", "*=1"]);
    book.granted(&grant_on("a", 2));
    assert_eq!(changes(&mut book), ["b=1", "*=1", "a=0"]);
    book.granted(&grant_on("c", 3));
    book.granted(&grant_on("c", 4));
    assert_eq!(changes(&mut book), ["b=0", "*=0"]);
}

#[test]
fn alternatives_of_one_strict_wish_end_with_the_first_grant() {
    let mut book = AskBook::default();
    let asks = [
        stated("a", 1, true),
        stated("b", 1, true),
        stated(DEFAULT_RACK, 1, false),
        stated(ANY, 1, false),
    ];
    assert_eq!(state(&mut book, &asks), ["a=1!", "b=1!"]);
    book.granted(&grant_on("b", 2));
    let mut gone = changes(&mut book);
    gone.sort();
    assert_eq!(gone, ["a=0", "b=0"]);
}

#[test]
fn a_rack_will_do_when_any_place_will_not() {
    let mut book = AskBook::default();
    let asks = [stated(DEFAULT_RACK, 2, true), stated(ANY, 2, false)];
    assert_eq!(state(&mut book, &asks), ["*=2"]);
}

#[test]
fn hosts_without_a_total_wait_for_it() {
    let mut book = AskBook::default();
    assert_eq!(
        state(&mut book, &[stated("a", 2, true)]),
        Vec::<String>::new()
    );
    assert_eq!(state(&mut book, &[stated(ANY, 2, true)]), ["a=2"]);
}

#[test]
fn what_the_master_has_not_received_counts_against_its_wish() {
    let mut book = AskBook::default();
    let on_its_way = [grant_on("a", 2)];
    book.state(&[stated(ANY, 4, true)], on_its_way.iter())
        .unwrap();
    assert_eq!(changes(&mut book), ["*=3"]);
    book.state(&[stated(ANY, 1, true)], on_its_way.iter())
        .unwrap();
    assert_eq!(changes(&mut book), ["*=0"]);
}

#[test]
fn a_wish_too_large_for_now_is_told_again_and_a_refused_one_forgotten() {
    let mut book = AskBook::default();
    assert_eq!(state(&mut book, &[stated(ANY, 3, true)]), ["*=3"]);
    book.too_large_now(1, 0, Resource::new(64, 1));
    assert_eq!(changes(&mut book), ["*=3"]);
    book.refused(1, 7);
    state(&mut book, &[]);
    book.refused(1, 0);
    assert_eq!(book.groups.len(), 1, "an earlier call's");
    state(&mut book, &[stated(ANY, 3, true)]);
    book.refused(1, 0);
    assert_eq!(changes(&mut book), Vec::<String>::new());
    assert!(book.groups.is_empty());
}

#[test]
fn too_many_change_nothing() {
    let mut book = AskBook::default();
    state(&mut book, &[stated(ANY, 3, true)]);
    let many: Vec<StatedAsk> = (0..ASKS_PER_APPLICATION_MAX)
        .map(|n| stated(&format!("h{n}"), 1, true))
        .collect();
    let refused = book.state(&many, std::iter::empty()).unwrap_err();
    assert_eq!(refused, TooManyAsks(ASKS_PER_APPLICATION_MAX + 1));
    assert_eq!(changes(&mut book), Vec::<String>::new());
}

proptest! {
    /// The core's side, as it counts: what is granted from an ask is taken from that ask alone. In
    /// the end as many containers were granted as were wanted, wherever they were placed.
    #[test]
    fn relaxed_wishes_are_granted_exactly(
        hosts in prop::collection::btree_map("[a-d]", 1_u32..4, 0..4),
        total in 0_u32..9,
        picks in prop::collection::vec((0_usize..8, "[a-e]"), 40),
    ) {
        let mut book = AskBook::default();
        let mut asks: Vec<StatedAsk> =
            hosts.iter().map(|(host, count)| stated(host, *count, true)).collect();
        asks.push(stated(ANY, total, true));
        book.state(&asks, std::iter::empty()).unwrap();
        let mut core: BTreeMap<String, u32> = BTreeMap::new();
        let mut granted = 0;
        for (number, (pick, host)) in (1_u32..).zip(picks) {
            for ask in book.take_changes() {
                core.insert(ask.key.place.clone(), ask.count);
            }
            core.retain(|_, count| *count > 0);
            prop_assert_eq!(core.values().sum::<u32>(), total - granted);
            let Some(place) = core.keys().nth(pick % core.len().max(1)).cloned() else { break };
            *core.get_mut(&place).unwrap() -= 1;
            granted += 1;
            book.granted(&grant_on(&host, number + 1));
        }
        prop_assert_eq!(granted, total);
        prop_assert!(book.take_changes().iter().all(|ask| ask.count == 0));
        // The master takes back what it stated of hosts; nothing is left then.
        let done: Vec<StatedAsk> = asks.iter().map(|ask| StatedAsk { count: 0, ..ask.clone() }).collect();
        book.state(&done, std::iter::empty()).unwrap();
        prop_assert!(book.take_changes().is_empty());
        prop_assert!(book.groups.is_empty());
    }
}
