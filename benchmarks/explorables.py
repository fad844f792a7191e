"""From a turn of a slider to the painted chart.

    python -m benchmarks.explorables

after `make book`. The depth figure at 50 layers and a batch of 64: each key press moves the weight
gain by one step. The time runs from the event's own time stamp to the first task after the frame is
painted; the wait for the screen's next refresh is switched off. Beside it the engine alone: as
WebAssembly with fused products, without, and as plain JavaScript.
"""

import platform
import statistics

from playwright.sync_api import sync_playwright

from tools.browser import FLAGS, executable, serving

PRESSES = 40
AT_ONCE = ["--disable-gpu-vsync", "--disable-frame-rate-limit"]
WATCH = """() => {
    window.times = [];
    addEventListener("input", (event) => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => times.push(performance.now() - event.timeStamp);
        port2.postMessage(null);
    }), true);
}"""
ENGINE = """([width, backend, rounds]) => {
    const { makeEngine, profile } = gradutilsExplorables.engine;
    const engine = makeEngine({ backend });
    const times = [];
    for (let i = 0; i < rounds + 1; i++) {
        const start = performance.now();
        profile(engine, {
            depth: 50, width, batch: 64, activation: "tanh", sigmaW: 1 + i / 1000, sigmaB: 0,
            seed: 0,
        });
        times.push(performance.now() - start);
    }
    return times.slice(1);  // the first one draws the weights
}"""


def describe(times):
    """Return median and quartiles, in milliseconds."""
    low, median, high = statistics.quantiles(times, n=4)
    return f"{median:6.1f} ms  ({low:.1f} to {high:.1f})"


def main():
    """Print the times."""
    with serving() as book, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS + AT_ONCE)
        print(f"{platform.machine()}, Chromium {browser.version}, depth 50, batch 64")
        page = browser.new_page()
        page.goto(f"{book}/book/playground.html")
        page.wait_for_selector("[data-explorable=depth][data-live]")
        page.evaluate(WATCH)
        for width in (32, 64, 128):
            page.select_option("[name=width]", str(width))
            page.focus("[data-explorable=depth] [name=sigma_w]")
            page.wait_for_timeout(200)
            page.evaluate("times.length = 0")
            for _ in range(PRESSES):
                page.keyboard.press("ArrowRight")
                page.wait_for_timeout(40)
            print(f"width {width:3d}: input to paint {describe(page.evaluate('times'))}")
            for backend in ("fused", "simd", "plain"):
                times = page.evaluate(ENGINE, [width, backend, 10])
                print(f"           {backend:11s}    {describe(times)}")
        browser.close()


if __name__ == "__main__":
    main()
