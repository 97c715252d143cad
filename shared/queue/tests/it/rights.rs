//! Who may do what.

use sluice_core::db::dynamic::script;

use crate::world::{World, said};

const CALL: &str = r#"'call', '{"connection": "main", "product": "billing", "method": "GET", "path": "/x"}'"#;
const PUSH: &str = r#"'push', '{"sync": "customers", "key": 1}'"#;

/// Runs a statement as a role; what it was refused with.
async fn as_role(world: &World, role: &str, sql: &str) -> Result<(), (String, String)> {
    let mut tx = world.db.begin().await.unwrap();
    script(format!("set local role {role}")).execute(&mut tx).await.unwrap();
    let outcome = script(sql.to_owned()).execute(&mut tx).await.map(|_| ()).map_err(|error| said(&error));
    if outcome.is_ok() {
        tx.commit().await.unwrap()
    } else {
        tx.rollback().await.unwrap()
    }
    outcome
}

async fn relations(world: &World) -> Vec<String> {
    let names: serde_json::Value = world
        .get("select jsonb_agg(c.oid::regclass::text) from pg_class c where c.relnamespace = 'sluice'::regnamespace and c.relkind in ('r', 'v', 'p') and not c.relispartition")
        .await;
    serde_json::from_value(names).unwrap()
}

#[tokio::test]
async fn sluice_enqueue_may_insert_jobs_and_read_back_their_ids_and_nothing_else() {
    let world = World::new().await;
    as_role(&world, "sluice_enqueue", &format!("insert into sluice.job (kind, args) values ({PUSH}) returning id, created_at"))
        .await
        .unwrap();
    as_role(&world, "sluice_enqueue", &format!("select sluice.enqueue({PUSH})")).await.unwrap();
    for table in relations(&world).await {
        let (code, _) = as_role(&world, "sluice_enqueue", &format!("select * from {table}")).await.unwrap_err();
        assert_eq!(code, "42501", "{table}");
    }
    for sql in [
        "insert into sluice.job (kind, args, created_by) values ('push', '{}', 'somebody else')",
        "delete from sluice.job",
        "select sluice.requeue(1)",
        "select sluice.cancel(1)",
        "select sluice.pause()",
        "select sluice.fold()",
        "select sluice.check_job()",
    ] {
        assert_eq!(as_role(&world, "sluice_enqueue", sql).await.unwrap_err().0, "42501", "{sql}");
    }
}

#[tokio::test]
async fn a_call_is_refused_to_whoever_is_no_member_of_sluice_admin_however_it_is_inserted() {
    let world = World::new().await;
    let role = format!("app_{}", world.get::<String>("select md5(current_database())").await);
    world
        .run(format!(
            "create role {role}; grant sluice_enqueue to {role}; create schema authorization {role};
             set role {role};
             create function {role}.sneak() returns bigint language sql security definer as $$ select sluice.enqueue({CALL}) $$;
             reset role; grant usage on schema {role} to sluice_enqueue"
        ))
        .await;
    for sql in [
        format!("insert into sluice.job (kind, args) values ({CALL})"),
        format!("select sluice.enqueue({CALL})"),
        format!("select {role}.sneak()"),
    ] {
        let (code, message) = as_role(&world, "sluice_enqueue", &sql).await.unwrap_err();
        assert_eq!(code, "42501", "{sql}: {message}");
        assert!(message.contains("may not insert \"call\" jobs"), "{sql}: {message}");
    }
    as_role(&world, "sluice_admin", &format!("select sluice.enqueue({CALL})")).await.unwrap();
    world.run(format!("drop schema {role} cascade; drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn sluice_read_reads_everything_but_credentials_and_changes_nothing() {
    let world = World::new().await;
    for table in relations(&world).await {
        let answer = as_role(&world, "sluice_read", &format!("select * from {table}")).await;
        assert_eq!(answer.is_err(), table == "sluice.credential", "{table}: {answer:?}");
    }
    for sql in [format!("select sluice.enqueue({PUSH})"), "select sluice.requeue(1)".into(), "update sluice.slot set failures = 0".into()] {
        assert_eq!(as_role(&world, "sluice_read", &sql).await.unwrap_err().0, "42501", "{sql}");
    }
    as_role(
        &world,
        "sluice_read",
        "select sluice.job_result(1), sluice.zoho_id('customers', '042'), sluice.changed_columns(array['name'], null, null, null)",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn sluice_admin_can_act_and_everybody_else_can_do_nothing() {
    let world = World::new().await;
    let role = format!("nobody_{}", world.get::<String>("select md5(current_database())").await);
    world.run(format!("create role {role}")).await;
    world
        .run(
            "insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message) values
               ('push', '{\"sync\": \"customers\", \"key\": 1}', 'customers', '1', 'normal', 'validation', 'no'),
               ('call', '{\"connection\": \"main\", \"product\": \"billing\", \"method\": \"GET\", \"path\": \"/x\"}', null, null, 'normal', 'unknown', 'no'),
               ('push', '{\"sync\": \"customers\", \"key\": 2}', 'customers', '2', 'normal', 'validation', 'no')",
        )
        .await;
    let acts = [
        "select sluice.requeue(1)",
        "select sluice.requeue(2)",
        "select sluice.discard(3)",
        "select sluice.cancel(1)",
        "select sluice.pause(sync => 'customers')",
        "select sluice.resume(sync => 'customers')",
        "select sluice.pause('main', reason => 'migration')",
        "select sluice.resume()",
        "select * from sluice.job_status, sluice.record_status, sluice.sync_status, sluice.budget_status",
    ];
    for sql in acts {
        assert_eq!(as_role(&world, &role, sql).await.unwrap_err().0, "42501", "{sql}");
    }
    for sql in acts {
        as_role(&world, "sluice_admin", sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    assert!(as_role(&world, "sluice_admin", "select * from sluice.credential").await.is_err());
    world.run(format!("drop role {role}")).await;
}

/// `pg_temp` is searched first for tables and types wherever it is not named, and anybody may put there what he likes.
#[tokio::test]
async fn every_function_that_chooses_a_search_path_looks_into_pg_temp_last() {
    let world = World::new().await;
    let open: serde_json::Value = world
        .get(
            "select coalesce(jsonb_agg(p.oid::regprocedure::text), '[]')
             from pg_proc p left join lateral (select s from unnest(p.proconfig) s where s like 'search_path=%') c on true
             where p.pronamespace = 'sluice'::regnamespace and case when c.s is null then p.prosecdef or p.prorettype = 'trigger'::regtype else c.s !~ ', pg_temp$' end",
        )
        .await;
    assert_eq!(open, serde_json::json!([]));
}

/// A type and a table of the caller's own, named like PostgreSQL's: with them a caller became Sluice's owner, and could do any request.
#[tokio::test]
async fn what_a_caller_puts_into_pg_temp_is_neither_called_nor_believed() {
    let world = World::new().await;
    let trap = "create function pg_temp.sprung(pg_catalog.text) returns boolean language plpgsql as
                  $$ begin if current_user <> 'sluice_enqueue' then raise exception 'sprung as %', current_user; end if; return true; end $$;
                create domain pg_temp.text as pg_catalog.text check (pg_temp.sprung(value));";
    as_role(&world, "sluice_enqueue", &format!("{trap} insert into sluice.job (kind, args) values ({PUSH}); drop domain pg_temp.text"))
        .await
        .unwrap();
    let roles =
        "create temp table pg_roles as select 'sluice_admin'::name as rolname, oid from pg_catalog.pg_roles where rolname = current_user;";
    let (code, message) =
        as_role(&world, "sluice_enqueue", &format!("{roles} insert into sluice.job (kind, args) values ({CALL})")).await.unwrap_err();
    assert_eq!(code, "42501", "{message}");
}
