// Keep a list at its newest line, unless the reader scrolled up.

const NEAR_PX = 40;

/** Follow the bottom of scroller while content grows; onAway(boolean) tells when the reader leaves or comes back. */
export function stickToBottom(scroller, content, onAway = () => {}) {
  let stuck = true;
  let lastTop = 0;

  function setStuck(wanted) {
    if (wanted !== stuck) onAway(!wanted);
    stuck = wanted;
    // While following, the browser must not move the list itself: its correction would look like the reader's scrolling.
    scroller.style.overflowAnchor = stuck ? "none" : "auto";
  }

  function follow() {
    if (!stuck) return;
    scroller.scrollTop = scroller.scrollHeight;
    lastTop = scroller.scrollTop;
  }

  scroller.addEventListener("scroll", () => {
    const near = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_PX;
    // Growing content can put distance under a list that is being followed; only a move upwards is the reader's.
    setStuck(near || (stuck && scroller.scrollTop >= lastTop));
    lastTop = scroller.scrollTop;
  }, { passive: true });

  const watch = new ResizeObserver(follow);
  watch.observe(content);
  watch.observe(scroller);
  setStuck(true);
  return {
    toBottom() {
      setStuck(true);
      follow();
    },
    get stuck() {
      return stuck;
    },
  };
}
