// Sections far from the window are not laid out; to measure them would lay them all out. So what the
// theme does to the whole page, this does to each part when it is laid out anyway: the keyboard can
// reach every block until it is measured, and then those that scroll.
{
  const BLOCKS = "pre, .cell_output > .output, .pst-scrollable-table-container";
  const SECTION = ".bd-article > section > section";
  const near = new Set();

  const measure = (blocks) => {
    const scrolls = blocks.map((block) =>
      block.scrollWidth > block.clientWidth || block.scrollHeight > block.clientHeight);
    blocks.forEach((block, i) => { block.tabIndex = scrolls[i] ? 0 : -1; });
  };
  const within = (part) => [...part.querySelectorAll(BLOCKS)];
  const onlyNear = "ContentVisibilityAutoStateChangeEvent" in window;
  const outside = () => within(document).filter((block) => !onlyNear || !block.closest(SECTION));
  const again = () => measure([...outside(), ...[...near].flatMap(within)]);

  within(document).forEach((block) => { block.tabIndex = 0; });
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(again, 300); });
  addEventListener("load", () => {
    for (const section of document.querySelectorAll(SECTION)) { // near before this script ran
      if (section.firstElementChild.checkVisibility?.({ contentVisibilityAuto: true })) near.add(section);
    }
    again();
  });
  document.addEventListener("toggle", ({ target }) => measure(within(target)), true);
  document.addEventListener("contentvisibilityautostatechange", ({ target, skipped }) => {
    if (!target.matches(SECTION)) return;
    near[skipped ? "delete" : "add"](target);
    if (!skipped) measure(within(target));
  });
  // The list of headings follows the reader where it is beside the text, in wide windows. In narrow
  // ones it is in a drawer, and finds out when that opens.
  const mark = () => {
    const links = [...document.querySelectorAll(".page-toc a.nav-link")].map((link) =>
      ({ link, heading: document.getElementById(decodeURIComponent(link.hash.slice(1))) }));
    const reached = (part) => part.getBoundingClientRect().top < innerHeight / 3;
    const section = [...document.querySelectorAll(SECTION)].filter(reached).at(-1);
    const current = links.filter(({ heading }) => section?.contains(heading) && reached(heading)).at(-1);
    for (const { link } of links) link.classList.toggle("active", link === current?.link);
  };
  if (!matchMedia("(min-width: 1200px)").matches) {
    document.body.removeAttribute("data-bs-spy");
    document.querySelector(".secondary-toggle")?.addEventListener("click", mark);
  }
}
