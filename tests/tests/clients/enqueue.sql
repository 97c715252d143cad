-- What a person or a script does: enqueue from psql, as a member of sluice_enqueue. Variables: sync, key.
\set ON_ERROR_STOP on
select jsonb_build_object('sync', :'sync', 'key', :'key') as args \gset
begin;
insert into sluice.job (kind, args) values ('push', :'args') returning id as rolled_back \gset
rollback;
select sluice.job_result(:rolled_back) is null as gone \gset
\if :gone
\else
  \warn 'a rolled back insert left a job'
  \q 1
\endif
insert into sluice.job (kind, args, lane, run_at) values ('push', :'args', 'interactive', now()) returning id, created_at;
select sluice.enqueue('push', :'args') as job;
\set ON_ERROR_STOP off
\set VERBOSITY terse
insert into sluice.job (kind, args) values ('nonsense', '{}');
insert into sluice.job (kind, args) values ('push', jsonb_build_object('sync', :'sync'));
insert into sluice.job (kind, args) values ('push', '{"sync": "nowhere", "key": "1"}');
insert into sluice.job (kind, args) values ('call', '{"connection": "main", "product": "billing", "method": "GET", "path": "/customers"}');
