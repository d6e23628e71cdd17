'use strict';
// The densities of black and white, the same for both maps, in the units of the first.
function setUpGrays(section, layers, redraw, text) {
  const sliders = ['black', 'white'].map(name => document.getElementById(`gray-${name}`));
  const start = [layers[0].low, layers[0].high];
  const [low, high] = [Math.min(start[0], ...layers.map(layer => layer.ends[0])), Math.max(start[1], ...layers.map(layer => layer.ends[1]))];
  const steps = 500;
  const places = start.map(value => Math.round((value - low) / (high - low) * steps));
  let range = start;

  function show() {
    for (const layer of layers) layer.setRange(...range);
    sliders.forEach((slider, end) => {
      slider.setAttribute('aria-valuetext', text(range[end]));
      section.querySelector(`output[for=${slider.id}]`).textContent = text(range[end]);
    });
    redraw();
  }

  function reset() {
    sliders.forEach((slider, end) => { slider.value = places[end]; });
    range = start;
    show();
  }
  sliders.forEach((slider, end) => {
    slider.max = steps;
    slider.addEventListener('input', () => { // black stays below white
      const limit = Number(sliders[1 - end].value);
      slider.value = end ? Math.max(Number(slider.value), limit + 1) : Math.min(Number(slider.value), limit - 1);
      range = range.map((value, other) => other === end ? low + (high - low) * Number(slider.value) / steps : value);
      show();
    });
  });
  document.getElementById('gray-reset').addEventListener('click', reset);
  reset();
}
