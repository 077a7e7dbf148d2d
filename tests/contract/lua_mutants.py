"""The Lua rule book with one defect each; random schedules must find every one.

Each is put between the last rule and the steps, where it takes the place of a rule, as a subclass
does in ``tests/simulation/ledger_mutants.py``. Behind the rules' defects stand those that only
this home can have: keys that are not written, not read, or not told apart.
"""

from __future__ import annotations

MUTANTS: dict[str, str] = {
    "no_reaper": "function rules._reap() end",
    "no_ring_again": """
        function rules._bells()
          local owed = job.bells
          job.bells = 0
          return owed
        end""",
    "bells_owed_are_lost": """
        local bells = rules._bells
        function rules._bells()
          job.bells, job.rung_s = 0, now_s
          return bells()
        end""",
    "errors_are_not_fenced": """
        local fail = rules._fail
        function rules._fail(chunk, token, settled, error)
          return fail(chunk, chunk.token or token, settled, error)
        end""",
    "beats_are_not_fenced": """
        local beat = rules._beat
        function rules._beat(told, draining)
          local chunk = books.chunk(told.chunk_id)
          told.token = chunk and chunk.token or told.token
          return beat(told, draining)
        end""",
    "releases_are_not_fenced": """
        local release = rules.release
        function rules.release(chunk_id, token, settled)
          local chunk = books.chunk(chunk_id)
          return release(chunk_id, chunk and chunk.token or token, settled)
        end""",
    "expiry_is_not_fenced": """
        local expire = rules.expire
        function rules.expire(held, alive)
          for _, claimed in ipairs(held) do
            local chunk = books.chunk(claimed[1])
            claimed[2] = chunk and chunk.token or claimed[2]
          end
          return expire(held, alive)
        end""",
    "final_is_not_final": "function rules._is_final() return false end",
    "any_epoch_will_do": """
        local submit = rules.submit
        function rules.submit(chunk_id, token, epoch, settled, deferred, error)
          return submit(chunk_id, token, job.epoch, settled, deferred, error)
        end""",
    "no_split": "function rules._split(chunk) rules._back(chunk, 'rescued') end",
    "split_loses_a_part": """
        local split = rules._split
        function rules._split(chunk)
          chunk.items[#chunk.items] = chunk.items[#chunk.items] - 1
          split(chunk)
        end""",
    "usable_twice": """
        local weigh = rules._weigh
        function rules._weigh()
          if job.state == 'open' then job.usable_s = nil end
          weigh()
        end""",
    "patient_child_lost": "function rules._defer(chunk) chunk.items = {} end",
    "deadline_forgets_what_is_open": """
        function rules._end(items_why, why, detail)
          job.why = why
          rules._close()
        end""",
    "submit_never_closes": """
        local weigh = rules._weigh
        function rules._weigh()
          if job.ready + job.running > 0 then weigh() end
        end""",
    "counts_twice": """
        local take = rules._take
        function rules._take(chunk, settled)
          local left = #chunk.items
          take(chunk, settled)
          if #settled.items > 0 and #chunk.items == left then
            job.checked = job.checked + spans.count(settled.items)
          end
        end""",
    "pause_is_a_loss": "function rules._arrive() job.seen_s = now_s end",
    "node_that_died_is_blamed": """
        local reap = rules._reap
        function rules._reap(lost)
          local all = {}
          for _, chunk in ipairs(lost) do all[chunk.node] = true end
          reap(lost, all)
        end""",
    "anyone_finalises": """
        local holder = rules._fin_holder
        function rules._fin_holder(token)
          if job.state == 'finalising' then return 'ok' end
          return holder(token)
        end""",
    "finalises_again": """
        local holder = rules._fin_holder
        function rules._fin_holder(token)
          if job.state == 'done' then return 'ok' end
          return holder(token)
        end""",
    "attempts_never_end": """
        local beat = rules._beat
        function rules._beat(told, draining)
          job.terms.attempt_hard_s = 1000000000
          return beat(told, draining)
        end""",
    "suspects_together": """
        local company = books.company
        function books.company(holder)
          local found = company(holder)
          found.among = 0
          return found
        end""",
    # --- of this home alone
    "claimed_stays_ready": """
        local put = books.put
        function books.put(chunk)
          put(chunk)
          if chunk.state == RUNNING then redis.call('ZADD', KEY.ready, chunk.place, chunk.id) end
        end""",
    "ready_is_forgotten": """
        local put = books.put
        function books.put(chunk)
          put(chunk)
          if chunk.state == READY then redis.call('ZREM', KEY.suspects, chunk.id) end
        end""",
    "leases_are_not_written": """
        local put = books.put
        function books.put(chunk)
          put(chunk)
          if chunk.state == RUNNING then redis.call('ZADD', KEY.lease, 1e12, chunk.id) end
        end""",
    "ended_is_not_read": "function books.end_all() end",
    "leases_are_not_renewed_after_a_pause": "function books.renew_all() end",
    "company_is_not_kept": """
        function books.company() return { held = 0, among = 0 } end""",
    "a_torn_job_goes_on": "function books.torn() return false end",
    "creation_forgets_what_was_settled": """
        local create = rules.create
        function rules.create()
          job.checked = 0
          create()
        end""",
    "parts_are_written_twice": """
        local add_part = books.add_part
        function books.add_part(part)
          add_part(part)
          add_part(part)
        end""",
}
