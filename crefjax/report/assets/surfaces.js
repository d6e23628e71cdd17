'use strict';
// Surfaces of the maps at contours that enclose the same volume, with one camera, drawn by NGL.
const surfaces = (() => {
  const section = document.getElementById('surfaces');
  if (!viewer || !section) return null;
  const {data, volumes, shape, bin, size, strides} = viewer;
  const keys = volumes.second ? ['first', 'second'] : ['first'];
  const last = keys[keys.length - 1];
  const total = shape[0] * shape[1] * shape[2];
  const voxel = size ** 3 * bin[0] * bin[1] * bin[2]; // Å³
  const DUST = Math.max(8, Math.ceil(200 / voxel)); // voxels; parts with fewer are hidden

  // Number of voxels above each level, and between two levels in proportion.
  const above = {};
  for (const key of keys) {
    const counts = new Float64Array(257);
    for (const level of volumes[key].levels) counts[level]++;
    for (let level = 255; level >= 0; level--) counts[level] += counts[level + 1];
    above[key] = counts;
  }

  // A level is known to lie within half a level of its number.
  function enclosed(key, level) {
    const edge = Math.min(Math.max(level + 0.5, 0), 256);
    const below = Math.min(Math.floor(edge), 255);
    return above[key][below] + (edge - below) * (above[key][below + 1] - above[key][below]);
  }

  function levelOf(key, voxels) {
    let [low, high] = [-0.5, 255.5];
    for (let step = 0; step < 40; step++) {
      const middle = (low + high) / 2;
      if (enclosed(key, middle) > voxels) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  function density(key, level) {
    const {low, high, highest} = volumes[key];
    return low + level / highest * (high - low);
  }

  // The levels with the small parts lowered below the contour: parts are joined by their faces.
  function withoutDust(levels, contour) {
    const out = levels.slice();
    const seen = new Uint8Array(total);
    const stack = new Int32Array(total);
    const part = new Int32Array(DUST);
    for (let start = 0; start < total; start++) {
      if (seen[start] || levels[start] <= contour) continue;
      let [top, found] = [1, 0];
      stack[0] = start;
      seen[start] = 1;
      while (top) {
        const i = stack[--top];
        if (found < DUST) part[found] = i;
        found++;
        const place = [Math.floor(i / strides[0]), Math.floor(i / strides[1]) % shape[1], i % shape[2]];
        for (let axis = 0; axis < 3; axis++) {
          for (const step of [-1, 1]) {
            const next = i + step * strides[axis];
            if (place[axis] + step < 0 || place[axis] + step >= shape[axis] || seen[next] || levels[next] <= contour) continue;
            seen[next] = 1;
            stack[top++] = next;
          }
        }
      }
      if (found < DUST) for (let n = 0; n < found; n++) out[part[n]] = Math.floor(contour);
    }
    return out;
  }

  // The color of a place is that of the nearest voxel; gray where nothing was measured.
  function colorScheme(layer) {
    const palette = viewer.palettes[layer.palette];
    return NGL.ColormakerRegistry.addScheme(function () {
      this.positionColor = place => {
        const at = [place.z, place.y, place.x].map((value, axis) => Math.min(Math.max(
          Math.round(((value - data.grid.origin[2 - axis]) / size - data.grid.first[axis]) / bin[axis]), 0), shape[axis] - 1));
        const color = layer.color(viewer.index(at));
        if (color === 255) return 0x9a9a9a;
        const pixel = palette[color];
        return (pixel & 255) << 16 | pixel & 0xff00 | pixel >> 16 & 255;
      };
    });
  }

  const controls = {};
  for (const id of ['contour', 'color', 'style', 'dust', 'model']) controls[id] = document.getElementById(`surface-${id}`);
  const panels = [];
  let schemes = {};

  function contours() {
    const level = Number(controls.contour.value);
    const voxels = enclosed(last, level);
    return {voxels, levels: Object.fromEntries(keys.map(key => [key, key === last ? level : levelOf(key, voxels)]))};
  }

  function describe() {
    const {voxels, levels} = contours();
    const text = keys.map(key => `${volumes[key].name} ${density(key, levels[key]).toPrecision(3)}`).join(', ');
    const volume = voxels * voxel / 1000;
    const nm3 = volume >= 100 ? Math.round(volume).toLocaleString('en') : Number(volume.toPrecision(3));
    const share = Number((100 * voxels / total).toPrecision(2));
    const output = section.querySelector('output[for=surface-contour]');
    output.textContent = `${text}; ${keys.length > 1 ? 'each encloses' : 'encloses'} ${nm3} nm³, ${share} % of what is shown`;
    controls.contour.setAttribute('aria-valuetext', output.textContent);
  }

  function surfaceParameters(panel) {
    const solid = {opacity: 1, wireframe: false};
    const style = {solid, transparent: {opacity: 0.45, wireframe: false}, mesh: {opacity: 1, wireframe: true}}[controls.style.value];
    const color = schemes[controls.color.value];
    return {...style, colorScheme: color || 'uniform', colorValue: panel.key === 'first' && keys.length > 1 ? 0xa8a8a8 : 0x4c9fd6};
  }

  function rebuild() {
    const {levels} = contours();
    for (const panel of panels) {
      const level = levels[panel.key];
      const field = controls.dust.checked ? withoutDust(volumes[panel.key].levels, level) : volumes[panel.key].levels;
      const volume = new NGL.Volume(volumes[panel.key].name, '', field, shape[2], shape[1], shape[0]);
      volume.setMatrix(panel.matrix);
      const component = panel.stage.addComponentFromObject(volume);
      component.addRepresentation('surface', {isolevelType: 'value', isolevel: level, useWorker: false, opaqueBack: false,
        roughness: 0.7, ...surfaceParameters(panel)});
      if (panel.component) panel.stage.removeComponent(panel.component);
      panel.component = component;
    }
  }

  function restyle() {
    for (const panel of panels) panel.component.reprList[0].setParameters(surfaceParameters(panel));
    for (const scale of section.querySelectorAll('.scale')) scale.hidden = scale.dataset.key !== controls.color.value;
  }

  function showModel() {
    for (const {model} of panels) {
      if (!model) continue;
      model.removeAllRepresentations();
      if (controls.model.value === 'ribbons') {
        model.addRepresentation('cartoon', {colorScheme: 'chainid', quality: 'medium'});
        model.addRepresentation('licorice', {sele: 'ligand', colorScheme: 'element', multipleBond: 'off'});
      } else if (controls.model.value === 'sticks') {
        model.addRepresentation('licorice', {colorScheme: 'element', colorValue: 0xd55e00, multipleBond: 'off', radius: 0.2});
      }
    }
  }

  function background() {
    const color = getComputedStyle(section.querySelector('.panel')).backgroundColor;
    for (const {stage} of panels) stage.setParameters({backgroundColor: color});
  }

  // Wheel and fingers belong to the page until the picture has been clicked or tapped; then they zoom and turn it.
  function addControls(panel) {
    for (const name of ['wheel', 'touchstart', 'touchmove']) {
      panel.frame.addEventListener(name, event => {
        if (document.activeElement !== panel.frame) event.stopImmediatePropagation();
      }, {capture: true});
    }
    panel.frame.addEventListener('pointerdown', () => panel.frame.focus({preventScroll: true}));
    panel.frame.addEventListener('click', () => panel.frame.focus({preventScroll: true}));
    panel.frame.addEventListener('keydown', event => {
      const camera = panel.stage.viewerControls;
      const act = {
        ArrowLeft: () => camera.spin([0, 1, 0], -0.15), ArrowRight: () => camera.spin([0, 1, 0], 0.15),
        ArrowUp: () => camera.spin([1, 0, 0], -0.15), ArrowDown: () => camera.spin([1, 0, 0], 0.15),
        '+': () => camera.zoom(0.1), '=': () => camera.zoom(0.1), '-': () => camera.zoom(-0.1), Home: reset,
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }

  // Look along z at what is within the contour of the last map.
  function reset() {
    const {levels} = contours();
    const field = withoutDust(volumes[last].levels, levels[last]);
    const low = [...shape];
    const high = [0, 0, 0];
    for (let i = 0; i < total; i++) {
      if (field[i] <= levels[last]) continue;
      const place = [Math.floor(i / strides[0]), Math.floor(i / strides[1]) % shape[1], i % shape[2]];
      for (let axis = 0; axis < 3; axis++) {
        low[axis] = Math.min(low[axis], place[axis]);
        high[axis] = Math.max(high[axis], place[axis]);
      }
    }
    const corner = ends => new NGL.Vector3(...[2, 1, 0].map(axis => viewer.coordinate(axis, ends[axis])));
    const box = new NGL.Box3(corner(low), corner(high));
    const {stage} = panels[0];
    stage.viewerControls.rotate([0, 0, 0, 1]);
    stage.viewerControls.center(box.getCenter(new NGL.Vector3()));
    stage.viewerControls.distance(stage.getZoomForBox(box));
  }

  function makePanel(frame) {
    const stage = new NGL.Stage(frame, {tooltip: false, workerDefault: false, sampleLevel: 0, clipDist: 5, fogNear: 60, fogFar: 120,
      ambientIntensity: 0.35, lightIntensity: 1.0});
    const [z, y, x] = data.grid.first.map((voxels, axis) => data.grid.origin[2 - axis] + size * voxels);
    const scale = new NGL.Matrix4().makeScale(size * bin[2], size * bin[1], size * bin[0]).setPosition(x, y, z);
    const panel = {frame, key: frame.dataset.key, stage, matrix: scale};
    panels.push(panel);
    addControls(panel);
    stage.viewerControls.signals.changed.add(() => {
      stage.viewer.rotationGroup.updateMatrix(); // else it is that of the last frame
      const orientation = stage.viewerControls.getOrientation();
      for (const other of panels) if (other !== panel) other.stage.viewerControls.orient(orientation, true);
    });
    return panel;
  }

  async function addModels() {
    if (!data.model) return;
    const text = new Blob([viewer.unpack('model-text')], {type: 'text/plain'});
    for (const panel of panels) {
      panel.model = await panel.stage.loadFile(text, {ext: 'cif', name: 'model', defaultRepresentation: false});
    }
    showModel();
  }

  function loadLibrary() {
    const script = document.createElement('script');
    script.textContent = fflate.strFromU8(viewer.unpack('library-ngl'));
    document.head.append(script);
  }

  function hasWebGL() {
    const canvas = document.createElement('canvas');
    const context = canvas.getContext('webgl2') || canvas.getContext('webgl');
    context?.getExtension('WEBGL_lose_context')?.loseContext();
    return Boolean(context);
  }

  async function draw() {
    const problem = section.querySelector('.problem');
    if (!hasWebGL()) {
      problem.hidden = false;
      return 'no WebGL';
    }
    section.querySelector('.viewer').hidden = false;
    loadLibrary();
    section.querySelectorAll('.panel').forEach(makePanel);
    schemes = Object.fromEntries(viewer.layers.filter(layer => layer.palette !== 'gray').map(layer => [layer.key, colorScheme(layer)]));
    rebuild();
    restyle();
    background();
    reset();
    await addModels();
    return 'drawn';
  }

  // Contours from where a quarter of the box is enclosed to where next to nothing is.
  const start = (data.contour - volumes[last].low) / (volumes[last].high - volumes[last].low) * volumes[last].highest;
  controls.contour.min = Math.min(Math.floor(levelOf(last, total / 4)), Math.floor(start));
  controls.contour.max = Math.max(Math.ceil(levelOf(last, total / 2e4)), Math.ceil(start) + 1);
  controls.contour.value = start;
  describe();
  let timer;
  controls.contour.addEventListener('input', () => {
    describe();
    clearTimeout(timer);
    timer = setTimeout(rebuild, 80);
  });
  controls.dust.addEventListener('change', rebuild);
  for (const id of ['color', 'style']) controls[id].addEventListener('change', restyle);
  controls.model?.addEventListener('change', showModel);
  document.getElementById('surface-reset').addEventListener('click', reset);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => setTimeout(background));
  addEventListener('resize', () => panels.forEach(panel => panel.stage.handleResize()));

  // The library is unpacked once the section comes near the screen.
  let begun;
  function begin() {
    begun ||= draw();
    return begun;
  }
  const observer = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    begin();
  }, {rootMargin: '200px'});
  observer.observe(section);
  return {begin, panels, contours, withoutDust, enclosed, levelOf};
})();
