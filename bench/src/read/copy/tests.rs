use super::*;

fn push(data: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            data.extend_from_slice(&i32::try_from(value.len()).expect("it is short").to_be_bytes());
            data.extend_from_slice(value);
        }
        None => data.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

/// Two rows as PostgreSQL writes them, with the header and the end mark.
fn two_rows() -> Vec<u8> {
    let mut data = SIGNATURE.to_vec();
    data.extend_from_slice(&[0; 8]);
    for position in [7_i64, 8] {
        let payload =
            format!("\u{1}{{\"payment\":\"p\",\"amount\":{position},\"currency\":\"EUR\",\"method\":\"card\"}}");
        data.extend_from_slice(&14_i16.to_be_bytes());
        push(&mut data, Some(&position.to_be_bytes()));
        push(&mut data, Some(&[9; 16]));
        for text in ["default", "order", "order-1"] {
            push(&mut data, Some(text.as_bytes()));
        }
        push(&mut data, Some(&position.to_be_bytes()));
        push(&mut data, Some(b"order.paid"));
        push(&mut data, Some(&1_i64.to_be_bytes()));
        push(&mut data, Some(payload.as_bytes()));
        push(&mut data, Some(b"\x01{}"));
        push(&mut data, Some("Gepäck".as_bytes()));
        push(&mut data, None);
        push(&mut data, (position == 7).then_some(&[3; 16]));
        push(&mut data, Some(&0_i64.to_be_bytes()));
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());
    data
}

#[test]
fn rows_are_complete_wherever_the_data_is_split() {
    let data = two_rows();
    for cut in 0..=data.len() {
        let (mut rows, mut events) = (Rows::default(), Vec::new());
        for piece in [&data[..cut], &data[cut..]] {
            rows.read(piece, |event| events.push(event)).expect("it is valid");
        }
        rows.end().expect("it is complete");
        let seen: Vec<_> = events.iter().map(|event| (event.position, event.paid.amount, event.append_id)).collect();
        assert_eq!(seen, [(7, 7, Some(Uuid::from_bytes([3; 16]))), (8, 8, None)], "cut at {cut}");
        assert_eq!(events[0].correlation_id.as_deref(), Some("Gepäck"));
        assert_eq!(events[0].metadata, "{}");
        assert_eq!(events[0].recorded_at.to_string(), "2000-01-01T00:00:00Z");
    }
}

#[test]
fn data_that_ends_too_early_is_an_error() {
    let data = two_rows();
    for end in [0, 5, HEADER, data.len() - 3, data.len() - 2] {
        let mut rows = Rows::default();
        rows.read(&data[..end], |_| {}).expect("the pieces are valid");
        assert!(rows.end().is_err(), "cut at {end}");
    }
}
