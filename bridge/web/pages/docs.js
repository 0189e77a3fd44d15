"use strict";

// The page is whole without this: the address as the browser has it, copying, and where one is.

function addCopying() {
  if (!navigator.clipboard) return;
  for (const block of document.querySelectorAll("pre")) {
    const text = block.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }
}

/** Behind a proxy that speaks TLS the server itself does not know its address. */
function setAddress() {
  const told = document.documentElement.dataset.address;
  for (const code of document.querySelectorAll("pre code")) {
    if (code.textContent.includes(told)) code.textContent = code.textContent.replaceAll(told, location.origin);
  }
}

function followReading() {
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const headings = [...document.querySelectorAll("main :is(h1, h2, h3)[id]")].filter((each) => links.has(each.id));
  let current = null;
  const look = () => {
    const above = headings.filter((each) => each.getBoundingClientRect().top < 120);
    const link = links.get((above.at(-1) ?? headings[0]).id);
    if (link === current) return;
    current?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "location");
    if (matchMedia("(min-width: 60rem)").matches) link.scrollIntoView({ block: "nearest" });
    current = link;
  };
  let frame = 0;
  addEventListener("scroll", () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      look();
    });
  }, { passive: true });
  look();
}

setAddress();
addCopying();
followReading();
// Not in the way where there is little room.
if (!matchMedia("(min-width: 60rem)").matches) document.querySelector(".contents").open = false;
