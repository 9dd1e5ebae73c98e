//! The schema as the server has it: after all migrations.

use super::{lines, new_store};

/// One text per theme. Written the same by every major version.
const THEMES: [(&str, &str); 7] = [
    (
        "columns",
        "SELECT format('%s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                       CASE WHEN o.collname <> 'default' THEN format(' COLLATE %I', o.collname) END,
                       CASE WHEN a.attnotnull THEN ' NOT NULL' END,
                       ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
         FROM pg_class AS c
         JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
         LEFT JOIN pg_collation AS o ON o.oid = a.attcollation
         WHERE c.relnamespace = 'annals'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
         ORDER BY c.relname, a.attnum",
    ),
    (
        "constraints",
        "SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
         FROM pg_constraint
         WHERE connamespace = 'annals'::regnamespace AND contype <> 'n'
         ORDER BY conrelid::regclass::text, conname",
    ),
    (
        "indexes",
        "SELECT pg_get_indexdef(i.indexrelid)
         FROM pg_index AS i
         JOIN pg_class AS c ON c.oid = i.indexrelid
         WHERE c.relnamespace = 'annals'::regnamespace
         ORDER BY c.relname",
    ),
    (
        "triggers (A: fires always, also under replication)",
        "SELECT format('%s %s', t.tgenabled, pg_get_triggerdef(t.oid))
         FROM pg_trigger AS t
         JOIN pg_class AS c ON c.oid = t.tgrelid
         WHERE c.relnamespace = 'annals'::regnamespace AND NOT t.tgisinternal
         ORDER BY c.relname, t.tgname",
    ),
    (
        "functions",
        "SELECT format('%s(%s) RETURNS %s LANGUAGE %s %s%s%s', p.proname, pg_get_function_arguments(p.oid),
                       pg_get_function_result(p.oid), l.lanname,
                       CASE p.provolatile WHEN 'v' THEN 'VOLATILE' WHEN 's' THEN 'STABLE' ELSE 'IMMUTABLE' END,
                       CASE WHEN p.prosecdef THEN ' SECURITY DEFINER' END,
                       (SELECT string_agg(' SET ' || s, '' ORDER BY s) FROM unnest(p.proconfig) AS s))
         FROM pg_proc AS p
         JOIN pg_language AS l ON l.oid = p.prolang
         WHERE p.pronamespace = 'annals'::regnamespace
         ORDER BY p.proname, p.oid::regprocedure::text",
    ),
    (
        "sequences",
        "SELECT format('%s %s START %s INCREMENT %s MIN %s MAX %s CACHE %s%s', s.seqrelid::regclass,
                       format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                       CASE WHEN s.seqcycle THEN ' CYCLE' END)
         FROM pg_sequence AS s
         JOIN pg_class AS c ON c.oid = s.seqrelid
         WHERE c.relnamespace = 'annals'::regnamespace
         ORDER BY c.relname",
    ),
    (
        "migrations",
        "SELECT format('%s %s: %s', component, number, name)
         FROM annals.migrations
         ORDER BY component, number",
    ),
];

#[tokio::test]
async fn the_schema_is_what_was_released() {
    let (_database, mut connection) = new_store().await;
    let mut schema = String::new();
    for (theme, query) in THEMES {
        schema.push_str(&format!("{theme}\n"));
        for line in lines(&mut connection, query).await {
            schema.push_str(&format!("    {}\n", line.trim_end()));
        }
    }
    insta::assert_snapshot!("schema", schema);
}
