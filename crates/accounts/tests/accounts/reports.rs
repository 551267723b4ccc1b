//! Bills and the cost of keys: sums of the usage records, over whatever period.

use jiff::Timestamp;
use weir_accounts::{
    BillLine, Cycle, KeyInfo, Nanos, NewHold, Outcome, Page, Price, Refund, Settlement, Source,
    UsageFilter, UsageRecord,
};

use crate::fixture::{Fixture, PRICE, at, nanos, raw, success, tokens};

/// The fixture's clock begins on Tuesday 2023-11-14 at 22:13:20 UTC.
const DAY: i64 = 86_400;
const ENDS: [i64; 7] = [0, 10, 3_600, 2 * DAY, 5 * DAY, 17 * DAY, 40 * DAY];
const DEARER: Price = Price {
    input: 11,
    output: 21,
    cached: Some(5),
};

/// Requests of two models that end at [`ENDS`]; from the fifth on, one of the models is dearer.
async fn used() -> Fixture {
    let fixture = Fixture::with(1_000_000).await;
    for (number, end) in (0u64..).zip(ENDS) {
        for model in ["org/a", "org/b"] {
            let dearer = number >= 4 && model == "org/a";
            let new = NewHold {
                model: model.to_owned(),
                price: if dearer { DEARER } else { PRICE },
                now: at(end),
                ..fixture.hold(&format!("{model}{number}"), 10_000)
            };
            let hold = fixture.accounts.hold(new).unwrap().durable().await.unwrap();
            let settlement = Settlement {
                counts: tokens(100 + number, 10 + number),
                outcome: Outcome::Success,
                source: Source::Engine,
                now: at(end),
            };
            fixture.accounts.settle(hold, settlement).await.unwrap();
        }
    }
    fixture
}

async fn bill(fixture: &Fixture, cycle: Cycle, from: i64, to: i64) -> Vec<BillLine> {
    let account = &fixture.caller.account;
    let bill = fixture.accounts.bill(account, cycle, [at(from), at(to)]);
    bill.await.unwrap()
}

fn sum(amounts: impl Iterator<Item = Nanos>) -> i64 {
    amounts.map(Nanos::get).sum()
}

#[tokio::test]
async fn each_line_is_the_sum_of_its_records() {
    let fixture = used().await;
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 100)
        .await
        .unwrap();
    assert_eq!(usage.len(), 2 * ENDS.len());
    let check = async |cycle, lines: usize| {
        let bill = bill(&fixture, cycle, 0, 41 * DAY).await;
        assert_eq!(bill.len(), lines, "{cycle:?}: {bill:#?}");
        for line in &bill {
            let of_line = |record: &&UsageRecord| {
                let within = line.starts_at <= record.ended_at && record.ended_at < line.ends_at;
                within && record.model == line.model && record.price == line.price
            };
            let records: Vec<_> = usage.iter().filter(of_line).collect();
            assert_eq!(line.requests, records.len() as u64, "{line:?}");
            assert_eq!(
                line.cost.get(),
                sum(records.iter().map(|record| record.cost))
            );
            let prompt: u64 = records.iter().map(|record| record.counts.prompt).sum();
            assert_eq!(line.counts.prompt, prompt);
        }
        let total = sum(bill.iter().map(|line| line.cost));
        assert_eq!(
            total,
            sum(usage.iter().map(|record| record.cost)),
            "{cycle:?}"
        );
        // The cost of a line with one request can be recomputed from the line.
        for line in bill.iter().filter(|line| line.requests == 1) {
            assert_eq!(line.price.cost(&line.counts), Some(line.cost));
        }
    };
    check(Cycle::Hour, 12).await;
    check(Cycle::Day, 10).await;
    check(Cycle::Week, 7).await;
    check(Cycle::Month, 5).await;
}

#[tokio::test]
async fn a_bill_ends_where_it_is_told_to() {
    let fixture = used().await;
    let starts = async |cycle, from, to| -> Vec<Timestamp> {
        let bill = bill(&fixture, cycle, from, to).await;
        let lines = bill.iter().filter(|line| line.model == "org/b");
        lines.map(|line| line.starts_at).collect()
    };
    assert_eq!(starts(Cycle::Hour, 0, 3_600).await.len(), 1);
    assert_eq!(starts(Cycle::Hour, 0, 3_601).await.len(), 2);
    assert_eq!(starts(Cycle::Hour, 11, 3_600).await.len(), 0);
    // Days are whole: this one ends at midnight, in 6,400 seconds.
    assert_eq!(starts(Cycle::Day, 5_000, 6_400).await.len(), 1);
    assert_eq!(starts(Cycle::Day, 6_400, DAY).await.len(), 0);
    assert_eq!(
        starts(Cycle::Month, 39 * DAY, 41 * DAY).await,
        ["2023-12-01T00:00:00Z".parse().unwrap()]
    );
}

/// Pages contain every record and every key once, in order.
#[tokio::test]
async fn records_and_keys_in_pages() {
    let fixture = used().await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let all = accounts.usage(account, 100).await.unwrap();
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = accounts
            .usage_page(account, Page { before, limit: 3 })
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        assert!(page.iter().all(|entry| entry.account == *account));
        found.extend(page.into_iter().map(|entry| entry.record));
    }
    assert_eq!(found, all);

    for second in [3, 1, 1, 2, 1] {
        accounts.add_key(account, None, at(second)).await.unwrap();
    }
    let all = accounts.keys(account).await.unwrap();
    let mut found: Vec<KeyInfo> = Vec::new();
    loop {
        let page = accounts.keys_after(account, found.last(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!((found.len(), &found), (6, &all));
}

/// Old records are deleted, their sums stay, and the books still add up.
#[tokio::test]
async fn old_records_are_deleted() {
    let fixture = used().await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let all = accounts.usage(account, 100).await.unwrap();
    let (before_days, before_months) = (
        bill(&fixture, Cycle::Day, 0, 100 * DAY).await,
        bill(&fixture, Cycle::Month, 0, 100 * DAY).await,
    );
    let refund = Refund {
        request: "org/a0".to_owned(),
        attempt: 0,
        amount: Some(nanos(10)),
        idempotency_key: "one".to_owned(),
        reason: "a test".to_owned(),
    };
    let refunded = accounts.refund(refund.clone(), at(1)).await.unwrap();
    assert_eq!(accounts.verify().await.unwrap(), [""; 0]);

    for (before, left) in [
        (0, 14),
        (1, 13),
        (10, 13),
        (3_601, 9),
        (3 * DAY, 7),
        (3 * DAY, 7),
        (100 * DAY, 1),
    ] {
        accounts.accept_clock(at(before)).await.unwrap();
        accounts.prune_usage(at(before), at(before)).await.unwrap();
        let kept = accounts.usage(account, 100).await.unwrap();
        assert_eq!(kept.len(), left, "before {before}");
        for record in &kept {
            let young = record.ended_at >= at(before);
            assert!(young || record.request == "org/a0", "{record:?}");
            assert!(all.contains(record));
        }
        assert_eq!(accounts.verify().await.unwrap(), [""; 0], "before {before}");
    }
    assert_eq!(bill(&fixture, Cycle::Day, 0, 100 * DAY).await, before_days);
    assert_eq!(
        bill(&fixture, Cycle::Month, 0, 100 * DAY).await,
        before_months
    );
    let again = accounts.refund(refund, at(2)).await.unwrap();
    assert_eq!(
        (again.transaction, again.replayed),
        (refunded.transaction, true)
    );

    // A record that is missing without having been deleted for its age is still found.
    let mut raw = raw(fixture.folder.path()).await;
    let sql = "UPDATE usage_day SET pruned_cost = pruned_cost - 1 WHERE model = 'org/a' AND day = (SELECT MAX(day) FROM usage_day)";
    raw.execute(sql).await.unwrap();
    let found = accounts.verify().await.unwrap();
    let [revenue, day] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(revenue.contains("the deleted records cost"), "{revenue}");
    assert!(day.contains("without a usage record"), "{day}");
}

/// Deleting takes more than one transaction, and refunded records stay, wherever they are.
#[tokio::test]
async fn many_old_records_are_deleted() {
    let fixture = Fixture::with(10_000_000).await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    for number in 0..1_100 {
        let new = fixture.hold(&format!("r{number}"), 1_000);
        let hold = accounts.hold(new).unwrap().durable().await.unwrap();
        accounts.settle(hold, success(tokens(10, 1))).await.unwrap();
    }
    let refunded = ["r1099", "r700", "r499", "r0"];
    for request in refunded {
        let refund = Refund {
            request: request.to_owned(),
            attempt: 0,
            amount: None,
            idempotency_key: request.to_owned(),
            reason: "a test".to_owned(),
        };
        accounts.refund(refund, at(5)).await.unwrap();
    }
    accounts.prune_usage(at(5), at(5)).await.unwrap();
    let usage = async || accounts.usage(account, 2_000).await.unwrap();
    let count = usage().await.len();
    assert_eq!(count, 1_100, "they ended at that time, not before");
    for again in [false, true] {
        accounts.prune_usage(at(6), at(6)).await.unwrap();
        let left = usage().await;
        let left: Vec<_> = left.iter().map(|record| record.request.as_str()).collect();
        assert_eq!(left, refunded, "again: {again}");
    }
    assert_eq!(accounts.verify().await.unwrap(), [""; 0]);
}

/// An export has each record and each line of a day once, whatever the size of its pages.
#[tokio::test]
async fn exports() {
    let fixture = used().await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let all = accounts.usage(account, 100).await.unwrap();
    let filter = |from, to, model: Option<&str>| UsageFilter {
        key: None,
        model: model.map(str::to_owned),
        from: at(from),
        to: at(to),
    };
    for (from, to, model) in [
        (0, 100 * DAY, None),
        (1, 100 * DAY, None),
        (10, 3_600, None),
        (0, 100 * DAY, Some("org/a")),
        (0, 100 * DAY, Some("org/c")),
    ] {
        let filter = filter(from, to, model);
        let mut found = Vec::new();
        loop {
            let piece = accounts
                .usage_records(account, &filter, found.last(), 3)
                .await
                .unwrap();
            if piece.is_empty() {
                break;
            }
            found.extend(piece);
        }
        let wanted = |record: &&UsageRecord| {
            record.ended_at >= at(from)
                && record.ended_at < at(to)
                && model.is_none_or(|model| record.model == model)
        };
        assert_eq!(found.len(), all.iter().filter(wanted).count(), "{filter:?}");
        assert!(
            found.iter().all(|entry| wanted(&&entry.record)),
            "{filter:?}"
        );
        assert!(found.is_sorted_by_key(|entry| (entry.record.ended_at, entry.id)));
    }
    let whole = filter(0, 100 * DAY, None);
    let mut days = Vec::new();
    loop {
        let piece = accounts
            .usage_days(account, &whole, days.last(), 2)
            .await
            .unwrap();
        if piece.is_empty() {
            break;
        }
        days.extend(piece);
    }
    let lines = bill(&fixture, Cycle::Day, 0, 100 * DAY).await;
    let costs = |costs: Vec<Nanos>| sum(costs.into_iter());
    assert_eq!(days.len(), lines.len());
    assert_eq!(
        costs(days.iter().map(|day| day.cost).collect()),
        costs(lines.iter().map(|line| line.cost).collect())
    );
    let none = UsageFilter {
        key: Some("other".to_owned()),
        ..whole
    };
    assert!(
        accounts
            .usage_days(account, &none, None, 2)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        accounts
            .usage_records(account, &none, None, 2)
            .await
            .unwrap()
            .is_empty()
    );
}
