// What the pages do beyond being read: links out of Airflow's frame, fresh figures, and the forms.
(() => {
  // Airflow's frame may not navigate the window around it. A click in that window's own document may.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[target=_top]");
    if (!link || window.parent === window) return;
    event.preventDefault();
    leave(link.href, event);
  });

  function leave(href, { ctrlKey, metaKey, shiftKey } = {}) {
    if (window.parent === window) {
      window.location.assign(href);
      return;
    }
    const outside = window.parent.document;
    const link = Object.assign(outside.createElement("a"), { href, hidden: true });
    outside.body.append(link);
    link.dispatchEvent(new window.parent.MouseEvent("click", { bubbles: true, cancelable: true, ctrlKey, metaKey, shiftKey }));
    link.remove();
  }

  // The part of the page that changes while one looks at it is asked for again, and what changed is announced.
  async function refresh() {
    const live = document.querySelector("[data-refresh]");
    if (!live) return;
    window.setTimeout(refresh, Number(live.dataset.refresh) * 1000);
    if (document.hidden) return;
    const answer = await fetch(window.location.href).catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-refresh]");
    if (!fresh || fresh.innerHTML === live.innerHTML) return;
    const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    live.replaceWith(fresh);
    if (focused) fresh.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
    const told = document.querySelector("#announcement");
    const summary = fresh.querySelector("[data-summary]")?.textContent.trim() ?? "";
    if (told.textContent !== summary) told.textContent = summary;
  }

  const live = document.querySelector("[data-refresh]");
  if (live) window.setTimeout(refresh, Number(live.dataset.refresh) * 1000);

  // The button says what it does.
  document.querySelector("button[data-dry]")?.form.addEventListener("change", ({ currentTarget: form }) => {
    const button = form.querySelector("button");
    button.textContent = form.elements.dry_run.checked ? button.dataset.dry : button.dataset.real;
  });

  // Airflow's frame allows no dialogs, so a button with `data-sure` asks by that text, and acts when pressed again.
  // The second half of a double click is no answer.
  function sure(form) {
    const button = form.querySelector("button");
    const { sure: question, askedAt } = button.dataset;
    if (!question) return true;
    if (!askedAt) {
      Object.assign(button.dataset, { askedAt: performance.now(), words: button.textContent });
      button.textContent = question;
      return false;
    }
    if (performance.now() - Number(askedAt) < 500) return false;
    // If it fails, it is asked once more.
    delete button.dataset.askedAt;
    button.textContent = button.dataset.words;
    return true;
  }

  const REFUSALS = { 401: "Not done: you are logged out. Log in to Airflow in another tab, and press here again." };

  // `refusals`: by status, what to say; a text or a function that returns one.
  async function send(form, url, body, refusals, method = "POST") {
    const told = form.querySelector("[role=alert]");
    const button = form.querySelector("button");
    button.disabled = true;
    told.textContent = "";
    try {
      const answer = await fetch(url, {
        method,
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      const data = await answer.json().catch(() => ({}));
      if (answer.ok) return data;
      const detail = typeof data.detail === "string" ? data.detail : "";
      const refusal = refusals[answer.status] ?? REFUSALS[answer.status] ?? `Not done: Airflow answered ${answer.status}. ${detail}`;
      told.textContent = typeof refusal === "function" ? await refusal() : refusal;
    } catch {
      told.textContent = "Not done: Airflow can't be reached. Try again.";
    } finally {
      button.disabled = false;
    }
    return null;
  }

  // The form of a rollback. It leads to the page that says what came of it.
  document.querySelector("form[data-trigger]")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    if (!sure(form)) return;
    const conf = {
      sync_id: Number(form.elements.sync_id.value),
      reason: form.elements.reason.value,
      dry_run: form.elements.dry_run?.checked ?? false,
      force: form.elements.force?.checked ?? false,
    };
    const refusals = { 403: "Not started: your role may not trigger warehouse_rollback." };
    const run = await send(form, form.dataset.trigger, { logical_date: null, conf }, refusals);
    if (run) window.location.assign(form.dataset.run.replace("RUN_ID", encodeURIComponent(run.dag_run_id)));
  });

  // Ask again about a hold, if nobody is asked about it any more.
  document.querySelector("form[data-ask]")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const { ask, runId, question, dag } = form.dataset;
    if (!sure(form)) return;
    const body = { dry_run: false, dag_run_id: runId, task_ids: ["decide"], include_downstream: true, only_failed: false };
    const refusals = {
      403: `Not done: your role may not clear tasks of ${dag}.`,
      404: `That run is gone. Trigger ${dag}: it scans again, and asks if that still holds the writer.`,
    };
    if (await send(form, ask, body, refusals)) window.location.assign(question);
  });

  // By a form's ticks, the entities whose plans a repair writes and those that it leaves; with one plan there are none.
  function chosen(form) {
    const boxes = [...form.querySelectorAll("[name=repair]")];
    const left = boxes.filter((box) => !box.checked).map((box) => box.value);
    const plans = JSON.parse(form.dataset.plans);
    return { plans, left, written: Object.keys(plans).filter((entity) => !left.includes(entity)) };
  }

  // What the second press of the button does.
  function confirmation(form) {
    const { plans, left, written } = chosen(form);
    if (!form.querySelector("[data-repairs]")?.checked || !written.length) return `Yes: ${form.elements.option.value}`;
    const rows = written.reduce((sum, entity) => sum + plans[entity], 0);
    const leave = left.length ? `; leave ${new Intl.ListFormat("en").format(left)}` : "";
    return `Yes: write ${rows.toLocaleString("en")} row${rows === 1 ? "" : "s"} (${written.join(", ")})${leave}`;
  }

  // The button of an answer says what it does.
  const answering = document.querySelector("form[data-answer]");
  answering?.addEventListener("change", ({ target }) => {
    if (!["option", "repair"].includes(target.name)) return;
    const button = answering.querySelector("button");
    delete button.dataset.askedAt;
    button.dataset.sure = confirmation(answering);
    button.textContent = answering.elements.option.value;
    answering.querySelector("[role=alert]").textContent = "";
  });

  // Why the question of the form can't be answered any more: empty if it can, or if Airflow does not say.
  async function overtaken({ dataset }) {
    const answer = await fetch(dataset.answer).catch(() => null);
    if (!answer?.ok) return "";
    const now = await answer.json();
    if (now.response_received) {
      const who = now.responded_by_user ? `by ${now.responded_by_user.name}` : "by nobody in time";
      const when = new Date(now.responded_at).toISOString().slice(0, 16).replace("T", " ");
      return `Answered already ${who}, ${when} UTC: ${now.chosen_options.join(", ")}. Your answer was not taken.`;
    }
    if (now.task_instance.id === dataset.attempt) return "";
    return "Not done: this was asked again since you opened the page. Reload it, and read the new question.";
  }

  // Airflow takes one answer. A second person is told of the first answer.
  answering?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const told = answering.querySelector("[role=alert]");
    const repairs = answering.querySelector("[data-repairs]")?.checked;
    const { left, written } = chosen(answering);
    if (repairs && left.length && !written.length) {
      told.textContent = "Tick what is to be repaired, or choose another answer.";
      return;
    }
    if (!sure(answering)) return;
    told.textContent = await overtaken(answering);
    if (told.textContent) return;
    const { option, reason } = answering.elements;
    const fields = { reason: reason.value || null };
    if (repairs && left.length) fields.leave_out = left;
    const refusals = {
      403: "Not done: you may not answer this question.",
      404: "Not done: nobody asks this any more. Reload the page.",
      409: () => overtaken(answering),
    };
    const body = { chosen_options: [option.value], params_input: fields };
    const answer = await send(answering, answering.dataset.answer, body, refusals, "PATCH");
    if (answer) window.location.assign(answering.dataset.answered);
  });
})();
