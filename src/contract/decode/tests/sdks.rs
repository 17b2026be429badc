//! Jobs to the letter as Prism's own SDKs print them.

use super::{POLICY, same};
use crate::{
    contract::create_link,
    domain::{CreateLink, Rejection},
};

fn read(body: &str) -> Result<CreateLink, Rejection> {
    create_link(body.as_bytes(), None, &POLICY)
}

/// `MessageToJson` of Python's protobuf 6: as it is, with the proto's field names, with empty fields, with numbers
/// for enums. `line1` and `access_token` are there and empty.
const PYTHON: [&str; 4] = [
    r#"{"merchantPayoutId": "po_1", "address": {"billingAddress": {"firstName": {"value": "Ada"}, "line1": {}, "countryAlpha2Code": "GB"}}, "connectorFeatureData": {"value": "{\"account\":\"x\"}"}, "payoutMethodData": {"sepa": {"bankName": "Revolut", "iban": {"value": "DE02120300000000202051"}}}, "amount": {"minorAmount": "9007199254740993", "currency": "EUR"}, "destinationCurrency": "EUR", "customer": {"name": "Ada", "email": {"value": "ada@example.com"}}, "priority": "FAST", "webhookUrl": "https://merchant.example/hook", "browserInfo": {"javaEnabled": false, "timeZoneOffsetMinutes": -60}, "accessToken": {}}"#,
    r#"{"merchant_payout_id": "po_1", "address": {"billing_address": {"first_name": {"value": "Ada"}, "line1": {}, "country_alpha2_code": "GB"}}, "connector_feature_data": {"value": "{\"account\":\"x\"}"}, "payout_method_data": {"sepa": {"bank_name": "Revolut", "iban": {"value": "DE02120300000000202051"}}}, "amount": {"minor_amount": "9007199254740993", "currency": "EUR"}, "destination_currency": "EUR", "customer": {"name": "Ada", "email": {"value": "ada@example.com"}}, "priority": "FAST", "webhook_url": "https://merchant.example/hook", "browser_info": {"java_enabled": false, "time_zone_offset_minutes": -60}, "access_token": {}}"#,
    r#"{"merchantPayoutId": "po_1", "address": {"billingAddress": {"firstName": {"value": "Ada"}, "line1": {"value": ""}, "countryAlpha2Code": "GB"}}, "connectorFeatureData": {"value": "{\"account\":\"x\"}"}, "payoutMethodData": {"sepa": {"bankName": "Revolut", "iban": {"value": "DE02120300000000202051"}}}, "amount": {"minorAmount": "9007199254740993", "currency": "EUR"}, "destinationCurrency": "EUR", "customer": {"name": "Ada", "email": {"value": "ada@example.com"}}, "priority": "FAST", "webhookUrl": "https://merchant.example/hook", "browserInfo": {"javaEnabled": false, "timeZoneOffsetMinutes": -60}, "accessToken": {"value": ""}}"#,
    r#"{"merchantPayoutId": "po_1", "address": {"billingAddress": {"firstName": {"value": "Ada"}, "line1": {"value": ""}, "countryAlpha2Code": 236}}, "connectorFeatureData": {"value": "{\"account\":\"x\"}"}, "payoutMethodData": {"sepa": {"bankName": 35, "iban": {"value": "DE02120300000000202051"}}}, "amount": {"minorAmount": "9007199254740993", "currency": 45}, "destinationCurrency": 45, "customer": {"name": "Ada", "email": {"value": "ada@example.com"}}, "priority": 2, "webhookUrl": "https://merchant.example/hook", "browserInfo": {"javaEnabled": false, "timeZoneOffsetMinutes": -60}, "accessToken": {"value": ""}}"#,
];

#[test]
fn what_python_prints_is_one_job_whatever_the_options() {
    let first = read(PYTHON[0]).unwrap();
    assert_eq!(first.amount.minor_units(), 9_007_199_254_740_993, "2^53 + 1: no float has it");
    // Given and empty, it would take the place of the configured credential.
    assert!(first.access_token.is_none());
    for printed in PYTHON {
        assert!(same(&first, &read(printed).unwrap()), "{printed}");
    }
}

#[test]
fn what_the_npm_sdk_holds_is_printed_with_its_longs_in_two_halves() {
    // hyperswitch-prism 0.4.0, JSON.stringify of a created and of a decoded message.
    let created = r#"{"merchantPayoutId":"po_1","address":{"billingAddress":{"firstName":{"value":"A"},"countryAlpha2Code":1,"line1":{"value":"x"}}},"amount":{"minorAmount":{"low":7,"high":3,"unsigned":false},"currency":146},"destinationCurrency":146,"payoutMethodData":{"pix":{"bankAccountNumber":{"value":"1"}}},"customer":{"customerDocumentDetails":{"documentType":1,"documentNumber":{"value":"9"}}},"browserInfo":{"timeZoneOffsetMinutes":-60}}"#;
    let decoded = r#"{"merchantPayoutId":"po_1","address":{"billingAddress":{"firstName":{"value":"A"},"line1":{"value":"x"},"countryAlpha2Code":1}},"payoutMethodData":{"pix":{"bankAccountNumber":{"value":"1"}}},"amount":{"minorAmount":{"low":7,"high":3,"unsigned":false},"currency":146},"destinationCurrency":146,"customer":{"customerDocumentDetails":{"documentType":1,"documentNumber":{"value":"9"}}},"browserInfo":{"timeZoneOffsetMinutes":-60}}"#;
    let [created, decoded] = [created, decoded].map(|printed| read(printed).unwrap());
    assert!(same(&created, &decoded));
    assert_eq!(created.amount.minor_units(), 3 * 4_294_967_296 + 7);
    assert_eq!(created.amount.currency.as_str(), "USD");
    // A low half with its highest bit set is negative as JavaScript prints it.
    let wide = r#"{"merchantPayoutId":"po_1","address":{},"amount":{"minorAmount":{"low":-294967296,"high":0,"unsigned":false},"currency":146},"destinationCurrency":146}"#;
    assert_eq!(read(wide).unwrap().amount.minor_units(), 4_000_000_000);
}

#[test]
fn the_number_0_of_every_enum_has_a_name_that_is_absent_too() {
    let printed = r#"{"merchantPayoutId":"po_1","address":{"billingAddress":{"countryAlpha2Code":"COUNTRY_ALPHA2_UNSPECIFIED"}},"amount":{"minorAmount":"5","currency":"USD"},"destinationCurrency":"USD","priority":"PAYOUT_PRIORITY_UNSPECIFIED","customer":{"customerDocumentDetails":{"documentType":"DOCUMENT_KIND_UNSPECIFIED"}},"payoutMethodData":{"card":{"cardNumber":{"value":"4"},"cardExpMonth":{"value":"1"},"cardExpYear":{"value":"30"},"cardNetwork":"CARD_NETWORK_UNSPECIFIED"}},"sourceBankData":{"ach":{"bankName":"BANK_NAMES_UNSPECIFIED"}}}"#;
    let absent = r#"{"merchantPayoutId":"po_1","address":{"billingAddress":{}},"amount":{"minorAmount":5,"currency":146},"destinationCurrency":146,"customer":{"customerDocumentDetails":{}},"payoutMethodData":{"card":{"cardNumber":"4","cardExpMonth":"1","cardExpYear":"30"}},"sourceBankData":{"ach":{}}}"#;
    assert!(same(&read(printed).unwrap(), &read(absent).unwrap()));
    let refused =
        read(&printed.replace(r#""currency":"USD""#, r#""currency":"CURRENCY_UNSPECIFIED""#)).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("amount.currency"));
}
