'use strict';
// The volumes of the page, and planes through them that share one position.
const viewer = (() => {
  const element = document.getElementById('viewer-data');
  if (!element) return null;
  const data = JSON.parse(element.textContent);
  const {shape, part, start, first, bin, origin, voxel_size: size} = data.grid; // axes z, y, x; origin x, y, z
  const names = ['z', 'y', 'x'];
  const strides = [shape[1] * shape[2], shape[2], 1];
  const at = [...data.position];
  const listeners = [];

  // Contents of a text block: base64 of a zlib stream.
  function unpack(id) {
    const text = atob(document.getElementById(id).textContent.trim());
    const packed = new Uint8Array(text.length);
    for (let i = 0; i < packed.length; i++) packed[i] = text.charCodeAt(i);
    return fflate.unzlibSync(packed);
  }

  // Levels from their differences along x and y, modulo 256.
  function integrate(levels) {
    const width = shape[2];
    const plane = strides[0];
    for (let i = 0; i < levels.length; i++) {
      const x = i % width;
      const inside = i % plane >= width;
      if (x) levels[i] += levels[i - 1];
      if (inside) levels[i] += levels[i - width] - (x ? levels[i - width - 1] : 0);
    }
    return levels;
  }

  const volumes = {};
  for (const [key, volume] of Object.entries(data.volumes)) {
    volumes[key] = {...volume, levels: integrate(unpack(`volume-${key}`))};
    const step = (volume.high - volume.low) / volume.highest;
    volumes[key].values = Float32Array.from({length: 256}, (_, level) => volume.low + level * step);
  }
  // The second map in the units of the first.
  if (volumes.second) volumes.second.matched = volumes.second.values.map(value => data.gain * value + data.offset);

  function clamped(value) {
    return Math.min(Math.max(value, 0), 254);
  }

  function change(i) {
    return (volumes.second.matched[volumes.second.levels[i]] - volumes.first.values[volumes.first.levels[i]]) / data.std;
  }

  // A layer gives for every voxel the number of its color, 0 to 254, or 255 where nothing is shown.
  function makeLayer(layer) {
    const volume = volumes[layer.key];
    if (layer.key === 'change') {
      const scale = 127 / layer.high;
      return {...layer, color: i => clamped(Math.round(127 + scale * change(i))), value: change};
    }
    const values = volume.matched || volume.values;
    const table = new Uint8Array(256);
    const made = {...layer, ends: [values[0], values[volume.highest]], color: i => table[volume.levels[i]], value: i =>
      volume.levels[i] > volume.highest ? null : volume.values[volume.levels[i]]};
    // The values of the first and the last color.
    made.setRange = (low, high) => {
      for (let level = 0; level < 256; level++) table[level] = clamped(Math.round(254 * (values[level] - low) / (high - low)));
      if (volume.highest < 255) table[255] = 255;
    };
    made.setRange(layer.low, layer.high);
    return made;
  }
  const layers = data.layers.map(makeLayer);

  // Colors as the pixels of a canvas, of which the last is clear.
  const palettes = {};
  for (const [name, text] of Object.entries(data.palettes)) {
    palettes[name] = new Uint32Array(256);
    const channels = new Uint8Array(palettes[name].buffer);
    for (let i = 0; i < 255; i++) {
      for (let c = 0; c < 3; c++) channels[4 * i + c] = parseInt(text.slice(6 * i + 2 * c, 6 * i + 2 * c + 2), 16);
      channels[4 * i + 3] = 255;
    }
  }

  function index(place) {
    return place[0] * strides[0] + place[1] * strides[1] + place[2];
  }

  // Voxel of the map, from 0, and coordinate in Å.
  function mapVoxel(axis, voxel) {
    return first[axis] + voxel * bin[axis];
  }

  function coordinate(axis, voxel) {
    return origin[2 - axis] + size * mapVoxel(axis, voxel);
  }

  function move(place) {
    for (let axis = 0; axis < 3; axis++) at[axis] = Math.min(Math.max(Math.round(place[axis]), 0), shape[axis] - 1);
    for (const listener of listeners) listener();
  }

  return {data, volumes, layers, palettes, shape, part, start, bin, size, names, strides, at, listeners,
    unpack, index, mapVoxel, coordinate, change, move};
})();

function setUpPlanes() {
  const {layers, palettes, shape, part, names, strides, at} = viewer;
  const section = document.getElementById('planes');
  const offscreen = document.createElement('canvas');
  const readout = section.querySelector('.readout');
  const views = [...section.querySelectorAll('.view')].map(frame => {
    const axis = Number(frame.dataset.axis);
    const across = axis === 2 ? 1 : 2;
    const up = axis === 0 ? 1 : 0;
    return {frame, axis, across, up, row: frame.dataset.row, canvas: frame.querySelector('canvas')};
  });

  function layerOf(row) {
    return layers[Number(section.querySelector(`input[name=row-${row}]:checked`).value)];
  }

  function paint(view, layer) {
    const [width, height] = [shape[view.across], shape[view.up]];
    offscreen.width = width;
    offscreen.height = height;
    const context = offscreen.getContext('2d');
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const palette = palettes[layer.palette];
    const plane = at[view.axis] * strides[view.axis];
    for (let row = 0, pixel = 0; row < height; row++) {
      let i = plane + (height - 1 - row) * strides[view.up];
      for (let column = 0; column < width; column++, i += strides[view.across]) pixels[pixel++] = palette[layer.color(i)];
    }
    context.putImageData(image, 0, 0);
  }

  function drawCross(context, view, width, height) {
    const x = (at[view.across] + 0.5) / shape[view.across] * width;
    const y = (1 - (at[view.up] + 0.5) / shape[view.up]) * height;
    const gap = Math.min(width, height) / 18;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.strokeStyle = 'rgba(255, 176, 0, .75)';
    context.stroke();
  }

  function drawBar(context, view, width, height) {
    const angstroms = part[view.across] * viewer.size;
    const decade = 10 ** Math.floor(Math.log10(angstroms / 4));
    const length = Math.max(...[1, 2, 5].map(step => step * decade).filter(step => step <= angstroms / 4 * 1.001));
    const ratio = devicePixelRatio || 1;
    const [x, y, pixels] = [8 * ratio, height - 9 * ratio, length / angstroms * width];
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    const text = `${length} Å`;
    const wide = Math.max(pixels, context.measureText(text).width) + 8 * ratio;
    context.fillStyle = '#101418b0'; // as behind the name of the layer; the change is light
    context.fillRect(x - 4 * ratio, y - 18 * ratio, wide, 25 * ratio);
    context.fillStyle = '#fff';
    context.fillRect(x, y, pixels, 3 * ratio);
    context.fillText(text, x, y - 5 * ratio);
  }

  function draw(view) {
    const {canvas} = view;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const layer = layerOf(view.row);
    paint(view, layer);
    const context = canvas.getContext('2d');
    context.imageSmoothingEnabled = true;
    context.clearRect(0, 0, width, height);
    context.drawImage(offscreen, 0, 0, width, height);
    context.lineWidth = ratio;
    drawCross(context, view, width, height);
    drawBar(context, view, width, height);
    view.frame.querySelector('.tag').textContent = layer.name;
    canvas.setAttribute('aria-label', `${layer.name}, plane ${names[view.axis]} = ${voxelText(view.axis)}`);
  }

  function voxelText(axis) {
    return String(Math.round(viewer.mapVoxel(axis, at[axis]) * 10) / 10);
  }

  function number(value) {
    return Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  }

  function describe() {
    const i = viewer.index(at);
    const voxels = [2, 1, 0].map(axis => `${names[axis]} ${voxelText(axis)}`).join(', ');
    const places = [2, 1, 0].map(axis => viewer.coordinate(axis, at[axis]).toFixed(1)).join(', ');
    const values = layers.map(layer => {
      const value = layer.value(i);
      return `${layer.name} ${value === null ? 'not measured' : number(value)}${layer.unit && value !== null ? ` ${layer.unit}` : ''}`;
    });
    readout.textContent = `voxel ${voxels} · (${places}) Å · ${values.join(' · ')}`;
  }

  function showScales() {
    const shown = new Set([...section.querySelectorAll('.rows input:checked')].map(input => layers[Number(input.value)].key));
    for (const scale of section.querySelectorAll('.scale')) scale.hidden = !shown.has(scale.dataset.key);
  }

  const sliders = names.map(name => document.getElementById(`plane-${name}`));
  function update() {
    for (let axis = 0; axis < 3; axis++) {
      sliders[axis].value = at[axis];
      const text = `${voxelText(axis)} (${viewer.coordinate(axis, at[axis]).toFixed(1)} Å)`;
      sliders[axis].setAttribute('aria-valuetext', text);
      section.querySelector(`output[for=plane-${names[axis]}]`).textContent = text;
    }
    describe();
    for (const view of views) draw(view);
  }

  setUpGrays(section, layers.filter(layer => layer.palette === 'gray'), () => viewer.move(at), number);

  // At most one drawing in each frame of the screen.
  let waiting = false;
  viewer.listeners.push(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      update();
    });
  });
  sliders.forEach((slider, axis) => {
    slider.max = shape[axis] - 1;
    slider.addEventListener('input', () => viewer.move(at.map((value, other) => other === axis ? Number(slider.value) : value)));
  });
  for (const view of views) followPointer(view, update);
  for (const input of section.querySelectorAll('.rows input')) {
    input.addEventListener('change', () => {
      showScales();
      for (const view of views) draw(view);
    });
  }
  new ResizeObserver(() => views.forEach(draw)).observe(section);
  showScales();
  update();
}

// A click or a dragged mouse moves the other two planes; arrows move them by one voxel, Page Up and Down this one.
function followPointer(view) {
  const {shape, at} = viewer;
  const {canvas, axis, across, up} = view;

  function go(event) {
    const box = canvas.getBoundingClientRect();
    const place = [...at];
    place[across] = Math.floor((event.clientX - box.left) / box.width * shape[across]);
    place[up] = shape[up] - 1 - Math.floor((event.clientY - box.top) / box.height * shape[up]);
    viewer.move(place);
  }
  let dragging = false;
  canvas.addEventListener('pointerdown', event => {
    if (event.pointerType === 'touch') return; // a finger may be about to scroll the page: it acts on the tap
    dragging = true;
    canvas.setPointerCapture(event.pointerId);
    go(event);
  });
  canvas.addEventListener('pointermove', event => dragging && go(event));
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { dragging = false; });
  canvas.addEventListener('click', go);
  canvas.addEventListener('keydown', event => {
    const steps = {ArrowLeft: [across, -1], ArrowRight: [across, 1], ArrowDown: [up, -1], ArrowUp: [up, 1], PageDown: [axis, -1],
      PageUp: [axis, 1]}[event.key];
    if (!steps) return;
    event.preventDefault();
    const place = [...at];
    place[steps[0]] += steps[1] * (event.shiftKey ? 10 : 1);
    viewer.move(place);
  });
}

if (viewer) setUpPlanes();
