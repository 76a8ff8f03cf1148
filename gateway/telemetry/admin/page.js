// Fetches the page again every few seconds, and puts in only what has changed: nothing flickers, and focus, scrolling
// and selection stay where they are.
"use strict";

const EVERY = 5000;

function renew(fresh) {
  for (const id of ["updated", ...Array.from(fresh.querySelectorAll("section"), (part) => part.id)]) {
    const old = document.getElementById(id);
    const now = fresh.getElementById(id);
    if (!old || !now || old.innerHTML === now.innerHTML) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const scrolled = Array.from(old.querySelectorAll(".wide"), (region) => region.scrollLeft);
    old.replaceChildren(...document.importNode(now, true).childNodes);
    Array.from(old.querySelectorAll(".wide")).forEach((region, place) => {
      region.scrollLeft = scrolled[place] || 0;
      if (focused !== null && region.getAttribute("aria-label") === focused) region.focus({ preventScroll: true });
    });
  }
}

async function look() {
  try {
    if (!document.hidden && !String(getSelection())) {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(EVERY) });
      if (!answer.ok) throw new Error(String(answer.status));
      renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
      document.body.classList.remove("stale");
    }
  } catch (wrong) {
    document.body.classList.add("stale");
    document.getElementById("updated").textContent = "The gateway does not answer; the figures below are old.";
  }
  setTimeout(look, EVERY);
}

setTimeout(look, EVERY);
