//! The caller's balance and bills, in the format of Novita's API.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use jiff::Timestamp;
use weir_accounts::{Account, BillLine, Caller, Cycle, Nanos};
use weir_api::billing::{
    BalanceDetail, Bill, BillQuery, Bills, FreeTrial, MonthlyBill, MonthlyBills, User,
};

use crate::app::App;
use crate::error::{ApiError, Reason};

/// Nano-USD in 0.0001 USD, the unit of Novita's amounts.
const UNIT: i64 = 100_000;
/// Price units in a dollar.
const PRICE_PRECISION: &str = "10000";
const CATEGORY: &str = "llm";
const DAY_SECONDS: i64 = 86_400;
/// Longest period of a list by the hour, in days.
const HOURS_DAYS_MAX: i64 = 31;
/// Longest period of a list by days, weeks or months, in days.
const CYCLES_DAYS_MAX: i64 = 1100;
const MONTHS_DAYS: i64 = 365;

pub(crate) async fn balance(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<BalanceDetail>, ApiError> {
    let account = app.gateway.own_account(&caller).await?;
    let cash = account.posted.get().saturating_sub(account.promo.get());
    Ok(Json(BalanceDetail {
        available_balance: floor(account.available.get()).to_string(),
        cash_balance: floor(cash.max(0)).to_string(),
        credit_limit: floor(account.credit_limit.get()).to_string(),
        pending_charges: ceil(account.held.get()).to_string(),
        outstanding_invoices: owed(&account).to_string(),
    }))
}

pub(crate) async fn user(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<User>, ApiError> {
    let account = app.gateway.own_account(&caller).await?;
    Ok(Json(User {
        allow_features: Vec::new(),
        credit_balance: floor(account.available.get()),
        free_trial: FreeTrial {},
    }))
}

/// Usage by cycle, model and price; `productCategory=summary` adds up the models.
pub(crate) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<BillQuery>, QueryRejection>,
) -> Result<Json<Bills>, ApiError> {
    let Query(query) = query.map_err(|error| {
        let message = format!("the query can't be read: {}", error.body_text());
        ApiError::new(Reason::InvalidRequest, message)
    })?;
    let cycle = cycle(&query.cycle_type)?;
    let summary = summary(&query.product_category)?;
    let time = time(&query, cycle, app.gateway.now())?;
    let mut lines = app.gateway.own_bill(&caller, cycle, time).await?;
    let named = |asked: &str, name: &str| asked.is_empty() || asked == name;
    lines.retain(|line| named(&query.product_name, &line.model));
    if !named(&query.owner_id, caller.account.as_str()) {
        lines.clear();
    }
    let account = caller.account.as_str();
    let bills = match summary {
        false => lines.iter().map(|line| of_line(account, line)).collect(),
        true => lines
            .chunk_by(|a, b| a.starts_at == b.starts_at)
            .map(|lines| of_cycle(account, lines))
            .collect(),
    };
    Ok(Json(Bills { bills }))
}

/// The months of the last year that have usage, the newest first.
pub(crate) async fn monthly(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<MonthlyBills>, ApiError> {
    let now = app.gateway.now();
    let from = seconds(now.as_second() - MONTHS_DAYS * DAY_SECONDS);
    let lines = app
        .gateway
        .own_bill(&caller, Cycle::Month, [from, now_and(now)])
        .await?;
    let mut data: Vec<_> = lines
        .chunk_by(|a, b| a.starts_at == b.starts_at)
        .map(|lines| of_month(caller.account.as_str(), lines, now))
        .collect();
    data.reverse();
    Ok(Json(MonthlyBills { data }))
}

fn cycle(asked: &str) -> Result<Cycle, ApiError> {
    match asked {
        "Hour" => Ok(Cycle::Hour),
        "" | "Day" => Ok(Cycle::Day),
        "Week" => Ok(Cycle::Week),
        "Month" => Ok(Cycle::Month),
        _ => Err(ApiError::new(
            Reason::InvalidBillCycle,
            "cycleType is Hour, Day, Week or Month",
        )
        .param("cycleType")),
    }
}

fn summary(asked: &str) -> Result<bool, ApiError> {
    match asked {
        "" | CATEGORY => Ok(false),
        "summary" => Ok(true),
        _ => Err(ApiError::new(
            Reason::InvalidProductCategory,
            "productCategory is summary or llm",
        )
        .param("productCategory")),
    }
}

/// The period of a list. Default: a day by the hour, 31 days by day, a year by week or month.
fn time(query: &BillQuery, cycle: Cycle, now: Timestamp) -> Result<[Timestamp; 2], ApiError> {
    let (days, days_max) = match cycle {
        Cycle::Hour => (1, HOURS_DAYS_MAX),
        Cycle::Day => (31, CYCLES_DAYS_MAX),
        Cycle::Week | Cycle::Month => (MONTHS_DAYS, CYCLES_DAYS_MAX),
    };
    let to = match query.end_time.as_str() {
        "" => now_and(now),
        text => parse("endTime", text)?,
    };
    let from = match query.start_time.as_str() {
        "" => seconds(to.as_second() - days * DAY_SECONDS),
        text => parse("startTime", text)?,
    };
    let length = to.as_second() - from.as_second();
    if !(0..=days_max * DAY_SECONDS).contains(&length) {
        let message =
            format!("startTime is at most {days_max} days before endTime, and not after it");
        return Err(ApiError::invalid("startTime", message));
    }
    Ok([from, to])
}

fn parse(name: &str, text: &str) -> Result<Timestamp, ApiError> {
    let time = text
        .parse()
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok());
    time.ok_or_else(|| ApiError::invalid(name, format!("{name} is a time in Unix seconds")))
}

/// The end of a period that includes now: the next full second.
fn now_and(now: Timestamp) -> Timestamp {
    seconds(now.as_second() + 1)
}

fn seconds(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

fn of_line(account: &str, line: &BillLine) -> Bill {
    let (input, output) = (line.price.input.to_string(), line.price.output.to_string());
    Bill {
        product_name: line.model.clone(),
        product_id: line.model.clone(),
        base_price0: input.clone(),
        base_price1: output.clone(),
        discount_price0: input,
        discount_price1: output,
        ..of_cycle(account, std::slice::from_ref(line))
    }
}

/// The sum of all lines of one cycle. `lines` has at least one.
fn of_cycle(account: &str, lines: &[BillLine]) -> Bill {
    let sum = |count: fn(&BillLine) -> u64| lines.iter().map(count).fold(0, u64::saturating_add);
    let (cost, promo) = paid(lines);
    let zero = || "0".to_owned();
    Bill {
        user_id: account.to_owned(),
        start_time: lines[0].starts_at.as_second().to_string(),
        end_time: lines[0].ends_at.as_second().to_string(),
        billing_method: "token".to_owned(),
        product_name: "LLM".to_owned(),
        category: CATEGORY.to_owned(),
        owner_id: account.to_owned(),
        bill_num0: sum(|line| line.counts.prompt).to_string(),
        bill_num1: sum(|line| line.counts.completion).to_string(),
        base_price0: zero(),
        base_price1: zero(),
        discount_price0: zero(),
        discount_price1: zero(),
        amount: round(cost).to_string(),
        voucher_amount: (round(cost) - round(cost - promo)).to_string(),
        pay_amount: round(cost - promo).to_string(),
        pay_amount_display: Nanos::new(cost - promo).to_string(),
        price_precision: PRICE_PRECISION.to_owned(),
        product_id: CATEGORY.to_owned(),
    }
}

fn of_month(account: &str, lines: &[BillLine], now: Timestamp) -> MonthlyBill {
    let (cost, promo) = paid(lines);
    let month: String = lines[0].starts_at.to_string().chars().take(7).collect();
    let (total, cash) = (round(cost), round(cost - promo));
    MonthlyBill {
        bill_id: format!("{account}-{month}"),
        user_id: account.to_owned(),
        billing_month: month,
        total_amount: total.to_string(),
        origin_total_amount: total.to_string(),
        voucher_pay_amount: (total - cash).to_string(),
        cash_pay_amount: cash.to_string(),
        debt_amount: "0".to_owned(),
        status: if lines[0].ends_at > now {
            "pending"
        } else {
            "paid"
        },
        invoice_url: String::new(),
        start_time: lines[0].starts_at.as_second().to_string(),
        end_time: lines[0].ends_at.as_second().to_string(),
        repaid_amount: "0".to_owned(),
    }
}

/// The cost of the lines, and the part of it that promo credit paid.
fn paid(lines: &[BillLine]) -> (i64, i64) {
    let sum = |amount: fn(&BillLine) -> Nanos| {
        lines
            .iter()
            .fold(0i64, |sum, line| sum.saturating_add(amount(line).get()))
    };
    (sum(|line| line.cost), sum(|line| line.promo))
}

/// The amount that a post-paid account has used of its credit limit.
fn owed(account: &Account) -> i64 {
    ceil(account.posted.get().saturating_neg().max(0))
}

fn floor(nanos: i64) -> i64 {
    nanos.div_euclid(UNIT)
}

fn ceil(nanos: i64) -> i64 {
    -(-nanos).div_euclid(UNIT)
}

fn round(nanos: i64) -> i64 {
    nanos.saturating_add(UNIT / 2).div_euclid(UNIT)
}
