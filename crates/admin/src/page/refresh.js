(() => {
  const every = 5000, page = document.getElementById("page");
  let failed = 0;
  // What was done is told once.
  const here = new URL(location.href);
  if (here.searchParams.has("done")) {
    here.searchParams.delete("done");
    here.searchParams.delete("node");
    history.replaceState(null, "", here);
  }
  const isBusy = () => {
    const chosen = getSelection();
    return document.hidden || (chosen && !chosen.isCollapsed);
  };
  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(every) });
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      // Without the head: its styles are for another nonce.
      const body = text.slice(text.indexOf("<body"));
      const next = new DOMParser().parseFromString(body, "text/html").getElementById("page");
      if (isBusy()) return;
      const focus = document.activeElement && document.activeElement.id;
      page.replaceChildren(...next.childNodes);
      if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
      failed = 0;
    } catch (error) {
      failed += 1;
    }
    document.body.classList.toggle("stale", failed > 1);
  };
  setInterval(() => isBusy() || refresh(), every);
})();
