// What the pages do beyond being read: links out of Airflow's frame, fresh figures, and the form of a rollback.
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
  document.querySelector("form[data-trigger]")?.addEventListener("change", ({ currentTarget: form }) => {
    const button = form.querySelector("button");
    button.textContent = form.elements.dry_run.checked ? button.dataset.dry : button.dataset.real;
  });

  // The trigger form of warehouse_rollback, which Airflow's own can't be opened with values in it.
  document.querySelector("form[data-trigger]")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const told = form.querySelector("[role=alert]");
    const button = form.querySelector("button");
    const conf = {
      sync_id: Number(form.elements.sync_id.value),
      reason: form.elements.reason.value,
      dry_run: form.elements.dry_run.checked,
      force: form.elements.force.checked,
    };
    button.disabled = true;
    told.textContent = "";
    try {
      const answer = await fetch(form.dataset.trigger, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ logical_date: null, conf }),
      });
      const body = await answer.json().catch(() => ({}));
      if (answer.ok) leave(form.dataset.run.replace("RUN_ID", encodeURIComponent(body.dag_run_id)));
      else if (answer.status === 403) told.textContent = "Not started: your role may not trigger warehouse_rollback.";
      else told.textContent = `Not started: Airflow answered ${answer.status}. ${typeof body.detail === "string" ? body.detail : ""}`;
    } catch {
      told.textContent = "Not started: Airflow can't be reached. Try again.";
    } finally {
      button.disabled = false;
    }
  });
})();
